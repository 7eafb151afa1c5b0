"Experiments behind servers: the untrained team, the teacher, budgets, keys, and one real server."
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import stub_server
from stub_server import StubServer

from optima.agents.messages import read_jsonl
from optima.base.errors import OptimaError
from optima.base.files import canonical_json
from optima.cli import main as cli
from optima.config.models import toy_base
from optima.config.settings import ASKING, load_settings
from optima.config.systems import SYSTEMS
from optima.engines.client import ServerEngine
from optima.engines.loading import load_model
from optima.engines.local import LocalEngine
from optima.engines.request import Request
from optima.run.registry import read_registry
from optima.run.team import student, teacher

TINY = ["--preset", "smoke", "--set", "benchmarks=toy_humaneval", "tasks_per_iteration=2", "evaluation_tasks=3",
        "iteration_tasks=2", "iterations=1", "decodings=sampled"]


@pytest.fixture(autouse=True)
def words(monkeypatch):
    "The stub talks like a team; a critic never accepts, so that debates are long."
    def said(body):
        return '{"verdict":" x "}' if "judge" in body["messages"][0]["content"] else '{"answer":" return x "}'

    monkeypatch.setattr(stub_server, "said", said)


def run(folder, *options, system="", steps=("iterations=0",)) -> dict | None:
    "Run one experiment by the command line: its registry line, or nothing where it stopped in good order."
    code = cli.main(["run", *system.split(), *TINY, *steps, *map(str, options), "--runs", str(folder)])
    assert code in (0, 2)
    return read_registry(folder)[-1] if code == 0 else None


def same(one: dict, two: dict) -> bool:
    "Whether two lines have equal settings and results, to the byte."
    return all(canonical_json(one[name]) == canonical_json(two[name]) for name in ("key", "settings", "results"))


def stage_costs(line: dict, name: str) -> list[dict]:
    "What a line's stages of one name cost."
    return [cost for cost in line["cost"]["stages"] if cost["stage"] == name]


def test_the_untrained_team_on_a_server_is_paid_once_and_leaves_no_address_behind(tmp_path):
    with StubServer() as stub:
        line = run(tmp_path / "runs", "--engine", "server", "--base-url", stub.url, "--model", "big")
        asked = sum(stub.served.values())
        assert asked == 3 * 5 == len((tmp_path / "runs/replies.jsonl").read_text().splitlines())
        (cost,) = stage_costs(line, "evaluate")
        assert cost["asked"] == asked and cost["usage_completion_tokens"] == 2 * asked and "flops" not in cost
        assert line["system"] == "untrained_debate"
        written = "".join(path.read_text() for path in (tmp_path / "runs").rglob("*") if path.is_file())
        assert "127.0.0.1" not in written
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "runs/replies.jsonl", tmp_path / "again")
    nobody = "http://127.0.0.1:9/v1"
    again = run(tmp_path / "again", "--engine", "server", "--base-url", nobody, "--model", "big")
    assert same(line, again) and stage_costs(again, "evaluate")[0]["replayed"] == asked
    assert stage_costs(again, "evaluate")[0]["usage_prompt_tokens"] == cost["usage_prompt_tokens"]


def test_a_budget_stops_a_run_in_good_order_and_the_rest_is_paid_after_it(tmp_path, capsys):
    options = "--engine", "server", "--model", "big", "--base-url"
    with StubServer() as stub:
        assert run(tmp_path / "runs", *options, stub.url, steps=("iterations=0", "budget_tokens=500")) is None
        told = [text for text in capsys.readouterr().err.splitlines() if text.startswith("optima: ")]
        assert len(told) == 1 and "budget_tokens = 500 is used up" in told[0] and not (tmp_path / "runs/registry.jsonl").exists()
        assert 0 < sum(stub.served.values()) < 15
        line = run(tmp_path / "runs", *options, stub.url)
        assert set(stub.served.values()) == {1} and len(stub.served) == 15
        assert same(line, run(tmp_path / "whole", *options, stub.url))


def test_a_teacher_on_a_server_teaches_in_the_students_tokens(tmp_path):
    from transformers import AutoTokenizer
    with StubServer() as stub:
        line = run(tmp_path, "--teacher", stub.url, "--teacher-model", "gpt-4", system="optima_debate", steps=())
        assert json.loads(next(iter(stub.served)))["model"] == "gpt-4"
    (cost,), tokenizer = stage_costs(line, "generate"), AutoTokenizer.from_pretrained(toy_base(0))
    assert cost["asked"] == sum(stub.served.values()) and "flops" not in cost and stage_costs(line, "train")[0]["tokens"] > 0
    assert stage_costs(line, "evaluate")[0]["flops"] > 0
    said = [m for path in tmp_path.glob("generate-*/shard-*") for done in read_jsonl(path) for m in done.messages]
    assert said and {message.token_source for message in said} == {"tokenizer"}
    assert {tokenizer.decode(m.token_ids) for m in said} == {f"{m.content} <end>" for m in said}
    assert line["settings"]["teacher"] == "gpt-4" and line["settings"]["teacher_engine"] == "server"


def test_the_teachers_rows_are_the_servers(tmp_path):
    with StubServer() as stub:
        line = run(tmp_path, "--teacher", stub.url, "--teacher-model", "gpt-4", system="teacher_debate")
    assert stage_costs(line, "evaluate")[0]["asked"] == sum(stub.served.values()) == 15


def served(**changes):
    "Settings of a team on a server."
    return load_settings("untrained_debate", "smoke", overrides={"engine": "server", "base_url": ["http://one/v1"], **changes})


def test_a_model_decides_results_and_an_address_does_not(tmp_path):
    local, base, other = load_settings("untrained_debate", "smoke"), served(), served(model="other")
    assert len({student(one).key for one in (local, base, other)}) == len({one.key for one in (local, base, other)}) == 3
    moved = served(base_url=["http://two/v1", "http://three/v1"], concurrency=3, budget_tokens=9, key_variable="OTHER")
    assert (moved.key, student(moved).key, moved.to_dict()) == (base.key, student(base).key, base.to_dict())
    named = served(model=str(base.base_folder))
    assert student(named).key == student(base).key and str(named.to_dict()["model"]) == base.base_folder.name
    assert not set(ASKING) & set(local.to_dict()) and "teacher_engine" not in local.to_dict()


def test_a_teacher_by_name_counts_by_its_name():
    def taught(name, url="http://one/v1"):
        return load_settings("optima_debate", "smoke", overrides={"teacher": name, "teacher_url": [url]})

    local = load_settings("optima_debate", "smoke")
    keys = [taught("gpt-4"), taught("gpt-4o"), taught("toy"), local]
    assert len({teacher(one).key for one in keys}) == len({one.key for one in keys}) == 4
    assert teacher(taught("gpt-4", "http://two/v1")).key == teacher(keys[0]).key


@pytest.mark.parametrize("system", [name for name in SYSTEMS if load_settings(name, "smoke").iterations])
def test_what_is_trained_is_not_on_a_server(system):
    with pytest.raises(OptimaError, match=f"{system} trains its team.*untrained_debate.*--teacher URL"):
        load_settings(system, "smoke", overrides={"engine": "server", "base_url": ["http://one/v1"]})


@pytest.mark.parametrize("options, words", [
    ("--engine servre", "unknown value of --engine: 'servre'; choose one of: server"),
    ("--engine server", 'needs base_url = ["http://HOST:PORT/v1"] (--base-url)'),
    ("--base-url http://one/v1", 'are for engine = "server"'),
    ("--model big", 'are for engine = "server"'),
    ("--engine server --base-url one:8000", "base_url = 'one:8000': expected an address such as"),
    ("--engine server --base-url http://one/v1,", "base_url = '': expected an address"),
    ("--engine server --base-url https://me:pw@one/v1", "leave user, password"),
    ("--teacher lokal", "teacher_url = 'lokal': expected an address"),
    ("--teacher-model gpt-4", "teacher = 'gpt-4': there is no folder"),
    ("--teacher http://one/v1 --set mode=self teacher=''", 'needs teacher = "NAME"'),
    ("--set budget_money=3", "budget_money needs price_in and price_out"),
    ("--set concurrency=0", "concurrency = 0: expected a number, at least 1"),
    ("--set budget_tokens=-1", "budget_tokens = -1"),
    ("--base-ur http://one/v1", "unknown option '--base-ur'; choose one of: --base-url"),
])
def test_what_the_user_can_mend(tmp_path, capsys, options, words):
    assert cli.main(["run", "--preset", "smoke", *options.split(), "--runs", str(tmp_path / "runs")]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert words in told and "pw" not in told and not (tmp_path / "runs").exists()


def test_the_teachers_rows_do_not_take_the_teams_server(capsys):
    command = "run teacher_debate --preset smoke --set iterations=0 --engine server --base-url http://one/v1"
    assert cli.main(command.split()) == 2 and "teacher_debate asks the teacher: give --teacher URL" in capsys.readouterr().err


def test_local_takes_a_presets_server_back(tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text('mode = "teacher"\nteacher = "gpt-4"\nteacher_url = ["http://one/v1"]\n')
    assert load_settings("optima_debate", str(preset)).teacher_folder == Path("gpt-4")
    chosen = cli.parse(["run", "--teacher", "local", "--teacher-model", "toy", "--preset", str(preset)])
    settings = load_settings("optima_debate", str(preset), overrides=cli.server_overrides(chosen))
    assert not settings.teacher_url and settings.teacher_folder.is_dir()


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    "`transformers serve` on the toy checkpoint; its address."
    folder = tmp_path_factory.mktemp("serve")
    (folder / "hub").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", toy_base(0), "--device", "cpu",
               "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "w") as log:
        started = subprocess.Popen(command, env=os.environ | {"HF_HOME": str(folder)}, stdout=log, stderr=log,
                                   start_new_session=True)
    for _ in range(600):
        if started.poll() is not None or up(port):
            break
        time.sleep(0.2)
    assert up(port), (folder / "log").read_text()[-2000:]
    yield f"http://127.0.0.1:{port}/v1"
    os.killpg(started.pid, signal.SIGTERM)
    started.wait(20)


def up(port: int) -> bool:
    "Whether a server answers."
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


def chat(question, noise=0, temperature=0.0, max_tokens=112) -> Request:
    "What a proposer of the toy world is asked first."
    messages = [{"role": "system", "content": "you propose"}, {"role": "user", "content": question}]
    return Request(question, messages, max_tokens, temperature, (noise,))


@pytest.mark.slow
def test_a_real_server_says_what_the_local_engine_says(real_server, tmp_path):
    model, tokenizer = load_model(toy_base(0))
    questions = ["f ( x , y ) : take away 5 , drop sign .", "f ( x , y ) : add y , times 3 .", "f ( x , y ) : <end> add y ."]
    requests = [*map(chat, questions), chat(questions[0], max_tokens=7)]
    engine = ServerEngine([real_server], str(toy_base(0)), tokenizer, tmp_path / "replies.jsonl")
    theirs, ours = engine.generate(requests), LocalEngine(model, tokenizer).generate(requests)
    for one, two in zip(theirs, ours):
        assert (one.text, one.token_ids, one.prompt_tokens, one.cut) == (two.text, two.token_ids, two.prompt_tokens, two.cut)
    told = engine.replies.spent(engine.identity)
    assert told == (sum(one.prompt_tokens for one in ours), sum(len(one.token_ids) for one in ours))
    drawn = engine.generate([chat(questions[0], noise, 1.0) for noise in range(8)])
    assert len({one.text for one in drawn}) > 1, "do_sample is missing from the checkpoint's generation config"
    with pytest.raises(OptimaError, match="status 400.*pinned to"):
        ServerEngine([real_server], "other", tokenizer, tmp_path / "replies.jsonl").generate(requests)


@pytest.mark.slow
def test_an_experiment_on_a_real_server(real_server, tmp_path):
    line = run(tmp_path / "served", "--engine", "server", "--base-url", real_server, steps=("iterations=0", "decodings=greedy"))
    local = run(tmp_path / "local", steps=("iterations=0", "decodings=greedy"), system="untrained_debate")
    assert line["results"] == local["results"] and line["settings"]["stages"] != local["settings"]["stages"]
