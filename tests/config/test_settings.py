"Settings: presets, systems, overrides, and errors that a user can act on."
import pytest
from plugged import plug

from optima.base.errors import OptimaError
from optima.base.files import make_folder
from optima.config.models import model_digest
from optima.config.settings import load_settings, parse_override, preset_names, read_preset
from optima.config.systems import ABLATIONS, MAIN, SYSTEMS
from optima.tasks.task import BENCHMARKS, Benchmark


def test_every_system_loads_under_every_preset():
    for preset in preset_names():
        teacher = {} if read_preset(preset).get("teacher") else {"teacher": "gpt-4", "teacher_url": ["http://127.0.0.1:1/v1"]}
        keys = {load_settings(system, preset, overrides=teacher).key for system in SYSTEMS}
        assert len(keys) == len(SYSTEMS)


def test_a_row_of_the_teacher_without_a_teacher_says_how_to_name_one():
    with pytest.raises(OptimaError, match="teacher_single.*--teacher URL --teacher-model NAME"):
        load_settings("teacher_single", "gpu24")


def test_preset_files_name_known_settings_and_differ():
    assert {"smoke", "toy"} <= set(preset_names())
    assert read_preset("smoke")["tasks_per_iteration"] < read_preset("toy")["tasks_per_iteration"] == 64
    for preset in ("smoke", "toy"):
        values = read_preset(preset)
        assert (values["mode"], values["teacher"]) == ("teacher", "toy")
        assert set(values["ablation_benchmarks"]) <= set(values["benchmarks"])


def test_untrained_systems_do_not_iterate_and_terse_ones_take_the_best_prompt():
    for system in (*MAIN, *ABLATIONS):
        settings = load_settings(system)
        assert (settings.iterations == 0) == system.startswith(("single", "untrained", "terse", "teacher"))
        assert settings.evaluation_strategy == ("best" if system.startswith("terse") else "none")
        assert settings.team == ("teacher" if system.startswith("teacher") else "student")


def changed(system, **overrides):
    "What sets an ablation's row apart from `full`."
    row, full = (load_settings(name, overrides=overrides).to_dict() for name in (system, "full"))
    return {name: value for name, value in row.items() if value != full[name] and name != "system"}


def test_ablations_change_one_thing_of_full():
    assert [changed(name) for name in ("full", "without_efficiency", "without_format", "without_task", "without_teacher",
                                       "random_selection", "efficiency_0.6")] == [
        {}, {"efficiency_weight": 0}, {"format_weight": 0}, {"task_weight": 0}, {"mode": "self"}, {"selection": "random"},
        {"efficiency_weight": 0.6}]
    assert {load_settings(system).paradigm for system in ABLATIONS} == {"multi_step"}


def test_without_iteration_trains_as_many_steps_at_once():
    assert changed("without_iteration", iterations=4, training_steps=5) == {"iterations": 1, "training_steps": 20}
    full, row = load_settings("full"), load_settings("without_iteration")
    assert (row.iterations, row.training_steps) == (1, full.iterations * full.training_steps)


def test_ablations_have_benchmarks_of_their_own(tmp_path):
    preset = tmp_path / "mine.toml"
    for ablated, expected in (("ablation_benchmarks = ['b']", ("b",)), ("", ("toy_humaneval", "b"))):
        preset.write_text(f"benchmarks = ['toy_humaneval', 'b']\n{ablated}")
        assert load_settings("full", str(preset)).benchmarks == expected
        assert load_settings("optima_multi_step", str(preset)).benchmarks == ("toy_humaneval", "b")
    assert load_settings("full", str(preset), overrides={"benchmarks": ["toy_humaneval"]}).benchmarks == ("toy_humaneval",)


@pytest.fixture(autouse=True)
def another_benchmark(monkeypatch):
    "A second benchmark that has a name and no tasks."
    plug(monkeypatch, BENCHMARKS, "b", Benchmark("b", "tests", lambda *_: []))


def test_the_teacher_counts_by_its_content(tmp_path, monkeypatch):
    for module in ("settings", "models"):
        monkeypatch.setattr(f"optima.config.{module}.CHECKPOINTS", tmp_path)
    keys = set()
    for words in ("one", "another"):
        make_folder(tmp_path / "toy-teacher").joinpath("config.json").write_text(words)
        keys.add(load_settings("single", overrides={"mode": "teacher", "teacher": "toy", "base": "a/b"}).key)
    assert len(keys) == 2 and load_settings("single", overrides={"teacher": "toy"}).to_dict()["teacher"] == "toy"


def test_candidates_are_the_distinct_strategies():
    overrides = {"strategies": ["none", "check", "brief", "check", "none"]}
    assert load_settings("terse_debate", overrides=overrides).candidates == ("check", "brief")


def test_the_tersest_prompt_has_one_name_everywhere():
    english = {"prompts": "english", "strategies": ["none", "brief"]}
    assert load_settings("terse_debate", overrides=english).candidates == ("brief",)


def test_the_key_tells_seeds_presets_and_overrides_apart():
    settings = [load_settings("single"), load_settings("single", seed=1), load_settings("single", "smoke"),
                load_settings("single", overrides={"evaluation_tasks": 399})]
    assert len({one.key for one in settings}) == 4
    assert load_settings("single", overrides={"evaluation_tasks": 400}).key == settings[0].key


@pytest.fixture
def models(tmp_path, monkeypatch):
    "Two model folders of one name, one of them given twice, and a preset beside each; another folder is the current one."
    for place, words in (("a", "one"), ("b", "two"), ("c", "one")):
        folder = tmp_path / place / "student"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(words)
        (tmp_path / place / "mine.toml").write_text('base = "student"')
    monkeypatch.chdir(tmp_path / "b")
    return tmp_path


def test_a_model_counts_by_its_content_and_leaves_no_path_behind(models):
    a, b, c = (load_settings("single", str(models / place / "mine.toml")) for place in "abc")
    assert a.base == str(models / "a" / "student") and a.base_folder.is_dir()
    assert a.key == c.key != b.key
    assert load_settings("single", overrides={"base": "../b/student"}).base == b.base
    assert a.to_dict()["base"] == "student" and a.to_dict() == b.to_dict()
    teacher = load_settings("single", overrides={"mode": "teacher", "teacher": "./student"})
    assert teacher.to_dict()["teacher"] == "student" and str(models) not in str(teacher.to_dict())
    assert load_settings("single").to_dict()["base"] == "toy"


def test_hub_models_of_one_last_name_differ():
    ours, theirs = (load_settings("single", overrides={"base": f"{owner}/model-8b"}) for owner in ("ours", "theirs"))
    assert ours.key != theirs.key and ours.to_dict()["base"] == "ours/model-8b"
    assert model_digest(ours.base_folder) == "ours/model-8b"


@pytest.mark.parametrize("value", ["./model", "../x/model", "~/no/model", "/no/model", "model", "a/b/c", "owner/"])
@pytest.mark.parametrize("name", ["base", "teacher"])
def test_a_model_folder_that_is_not_there(name, value):
    with pytest.raises(OptimaError, match=f"overrides: {name} = '{value}': there is no folder /"):
        load_settings("single", overrides={name: value})


def test_a_folder_without_a_model(models):
    (models / "b" / "mine.toml").write_text('base = "."')
    with pytest.raises(OptimaError, match=f"mine.toml: base = '.': {models}/b is no model folder"):
        load_settings("single", "mine.toml")


def test_a_data_folder_is_found_from_the_preset_and_leaves_no_path_behind(tmp_path, monkeypatch):
    (tmp_path / "presets" / "rows").mkdir(parents=True)
    preset = tmp_path / "presets" / "mine.toml"
    preset.write_text("data = 'rows'")
    settings = load_settings("single", str(preset))
    assert settings.data == str((tmp_path / "presets" / "rows").resolve()) and settings.to_dict()["data"] == "rows"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptimaError, match=f"overrides: data = 'rows': there is no folder {tmp_path}/rows"):
        load_settings("single", str(preset), overrides={"data": "rows"})
    assert "data" not in load_settings("single", str(preset), overrides={"data": ""}).to_dict()


def test_some_settings_as_json_values():
    settings = load_settings("optima_debate", seed=3, overrides={"strategies": ["none", "check"]})
    assert settings.pick("seed", "strategies") == {"seed": 3, "strategies": ["none", "check"]}


@pytest.mark.parametrize("overrides, words", [
    ({"iteration": 1}, ["overrides: unknown setting 'iteration'; choose one of: iterations,"]),
    ({"iterations": "2"}, ["iterations", "'2'", "a whole number"]),
    ({"iterations": True}, ["a whole number"]),
    ({"learning_rate": "1e-5"}, ["learning_rate", "a number"]),
    ({"strategies": "none"}, ["strategies", "a list of texts"]),
    ({"strategies": []}, ["strategies is empty"]),
    ({"decodings": ["beam"]}, ["unknown decoding 'beam'", "greedy, sampled"]),
    ({"diversity": 1}, ["true or false"]),
    ({"keep_share": 1.5}, ["keep_share", "at least 0 and at most 1"]),
    ({"keep_share": 0}, ["keep_share = 0", "above 0"]),
    ({"temperature": float("inf")}, ["temperature = inf: expected a number, at least 0"]),
    ({"threshold": float("-inf")}, ["threshold = -inf: expected a number"]),
    ({"task_weight": float("nan")}, ["task_weight = nan"]),
    ({"strategies": ["none", "brif"]}, ["value of strategies under toy prompts: 'brif'; choose one of: brief"]),
    ({"evaluation_strategy": "keywords"}, ["value of evaluation_strategy under toy prompts: 'keywords'"]),
    ({"prompts": "english"}, ["value of strategies under english prompts: 'polite'; choose one of:"]),
    ({"benchmarks": ["toy_humanevil"]}, ["value of benchmarks: 'toy_humanevil'; choose one of: toy_humaneval"]),
    ({"batch_size": 0}, ["batch_size", "at least 1"]),
    ({"paradigm": "debat"}, ["paradigm", "choose one of: debate"]),
    ({"teacher": ""}, ['mode = "teacher" needs a teacher: --set teacher=PATH']),
    ({"mode": "self", "team": "teacher", "teacher": "", "iterations": 0}, ['team = "teacher" needs a teacher']),
    ({"team": "teacher"}, ["evaluated only: iterations = 3, expected 0"]),
    ({"team": "techer"}, ["'techer'; choose one of: teacher"]),
    ({"evaluation_strategy": "best"}, ["not trained: iterations = 3, expected 0"]),
    ({"evaluation_strategy": "best", "iterations": 0, "strategies": ["none"]}, ["nothing to choose from"]),
    ({"ablation_benchmarks": ["toy_humanevil"]}, ["value of ablation_benchmarks: 'toy_humanevil'; choose one of: toy_humaneval"]),
    ({"ablation_benchmarks": "toy_humaneval"}, ["ablation_benchmarks", "a list of texts"]),
    ({"iteration_tasks": 0}, ["iteration_tasks = 0", "at least 1"]),
    ({"evaluation_tasks": 99999999999999999999}, ["evaluation_tasks = 99999999999999999999", "at most 1000000"]),
    ({"development_tasks": 1.5}, ["development_tasks = 1.5", "a whole number"]),
    ({"task_weight": 0, "efficiency_weight": 0, "format_weight": 0}, ["all 0"]),
    ({"system": "single"}, ["unknown setting 'system'"]),
])
def test_wrong_overrides_are_one_clear_line(overrides, words):
    with pytest.raises(OptimaError) as caught:
        load_settings("optima_debate", overrides=overrides)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("iterations = 1\niteration = 2", "mine.toml: unknown setting 'iteration'; choose one of: iterations"),
    ("learning_rate = '1e-5'", "mine.toml: learning_rate = '1e-5': expected a number"),
    ("[table]\nx = 1", "mine.toml: unknown setting 'table'"),
    ("iterations =", "mine.toml: not TOML"),
])
def test_wrong_preset_files_name_file_and_key(tmp_path, text, words):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(OptimaError, match="mine.toml") as caught:
        load_settings("single", str(path))
    assert words in str(caught.value)


def test_wrong_names():
    with pytest.raises(OptimaError, match="choose one of: optima_debate"):
        load_settings("optima_debat")
    with pytest.raises(OptimaError, match="choose one of: toy"):
        load_settings("single", "toyy")
    with pytest.raises(OptimaError, match="seed"):
        load_settings("single", seed="7")
    with pytest.raises(OptimaError, match="seed"):
        load_settings("single", seed=-1)


@pytest.mark.parametrize("text, expected", [
    ("iterations=1", ("iterations", 1)), ("learning_rate=1e-5", ("learning_rate", 1e-5)),
    ("diversity=false", ("diversity", False)), ("base=/models/x", ("base", "/models/x")),
    ("paradigm='debate'", ("paradigm", "debate")), ("decodings=greedy", ("decodings", ["greedy"])),
    ("strategies=none,brief", ("strategies", ["none", "brief"])), ('strategies=["none"]', ("strategies", ["none"])),
    ("iterations=two", ("iterations", "two")),
])
def test_overrides_of_the_command_line(text, expected):
    assert parse_override(text) == expected


def test_an_override_without_value():
    with pytest.raises(OptimaError, match="key=value"):
        parse_override("iterations")
