"The card beside every trained adapter: what it tells, that hostile words stay words, and an export with scores."
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from optima.base.files import file_digest
from optima.cli import main as cli
from optima.config.models import toy_base
from optima.run.registry import read_registry
from optima.run.stages import done_files
from optima.train.card import UNSCORED, about_base, add_scores, write_card

TINY = ["--preset", "smoke", "--set", "benchmarks=toy_humaneval", "tasks_per_iteration=2", "evaluation_tasks=3", "iteration_tasks=2",
        "iterations=1", "decodings=greedy"]
HOSTILE = "a|b\n---\n# Title\n## Scores\n\n" + UNSCORED + "\n<script>alert(1)</script> [x](javascript:y) {{ 7 * 7 }} {% x %} \ud800 \u2028---"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A run folder with one small trained experiment, and one that trained nothing."
    folder = tmp_path_factory.mktemp("cards") / "runs"
    for system, more in (("optima_debate", ()), ("untrained_debate", ("iterations=0",))):
        assert cli.main(["run", system, *TINY, *more, "--runs", str(folder)]) == 0
    return folder


def adapter(folder: Path) -> Path:
    "A folder with an adapter's description."
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}))
    return folder


def front_matter(path: Path) -> dict:
    "The YAML between the first two rules."
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_a_stage_holds_a_card_that_names_base_data_and_settings(runs):
    (stage,) = runs.glob("train-*")
    (chosen,) = runs.glob("select-*/selected.jsonl")
    card, about = ModelCard.load(stage / "adapter/README.md"), json.loads((stage / "settings.json").read_text())["settings"]
    assert card.data.base_model == "toy-base-0" and card.data.license == "apache-2.0" and card.data.library_name == "peft"
    assert about_base(toy_base(0))["version"] in card.text and file_digest(chosen) in card.text and chosen.parent.name in card.text
    assert f"| learning_rate | {about['learning_rate']} |" in card.text and f"| rank | {about['lora_rank']} |" in card.text
    assert UNSCORED in card.text and "never in 4 bits" in card.text and "toy models" in card.text
    assert "adapter/README.md" in done_files(stage)


def test_the_card_knows_nothing_that_the_stages_key_does_not(runs, tmp_path):
    "Another experiment shares the stage, and another folder and machine make it again: the same bytes."
    overrides = ["iteration_tasks=1", "decodings=sampled"]
    assert cli.main(["run", "optima_debate", *TINY, *overrides, "--runs", str(tmp_path / "other place")]) == 0
    texts = [path.read_text() for folder in (runs, tmp_path / "other place") for path in folder.glob("train-*/adapter/README.md")]
    names = [path.name for folder in (runs, tmp_path / "other place") for path in folder.glob("train-*")]
    assert len(texts) == 2 and names[0] == names[1] and texts[0] == texts[1]
    assert str(tmp_path) not in texts[1] and "optima_debate" not in texts[1]


def test_hostile_words_stay_words(tmp_path):
    folder = adapter(tmp_path / "adapter")
    write_card(folder, HOSTILE, {HOSTILE: HOSTILE}, {"system": HOSTILE, "quantization": HOSTILE})
    card, text = ModelCard.load(folder / "README.md"), (folder / "README.md").read_text(encoding="utf-8")
    body = text.split("\n---\n", 1)[1]
    assert "<" not in body and "](" not in body and "{{ 7 &#42; 7 }}" in body
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        line for line in body.splitlines() if re.fullmatch(r"# Adapter of .*|## (Base|Adapter|Data|Settings|Scores|Limits)", line)]
    assert card.data.license == "unknown" and set(front_matter(folder / "README.md")) == {
        "base_model", "library_name", "license", "pipeline_tag", "tags"}
    row = {"benchmark": HOSTILE, "decoding": HOSTILE, "score": 0.5, "score_ci": [0.4, 0.6], "tokens": 9.0, "tokens_ci": [8.0, 10.0],
           "n": 3, "seeds": 1}
    add_scores(folder, [row], "From a test.")
    scored = ModelCard.load(folder / "README.md")
    assert scored.data.eval_results[0].metric_args["interval_95"] == [0.4, 0.6] and "<script" not in scored.text


@pytest.mark.parametrize("text, licence", [("---\nlicense: mit\n---\n", "mit"), ("---\nlicense: [\n---\n", "unknown"),
                                           ("---\n- a list\n---\n", "unknown"), ("no metadata", "unknown"), (None, "unknown")])
def test_the_licence_is_the_bases_or_unknown(tmp_path, text, licence):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert about_base(tmp_path)["licence"] == licence and about_base("owner/name@abc")["licence"] == "unknown"


def test_an_export_tells_the_adapters_of_two_benchmarks_apart(tmp_path):
    two = ["benchmarks=toy_humaneval,toy_hotpotqa" if option.startswith("benchmarks") else option for option in TINY]
    assert cli.main(["run", "optima_debate", *two, "--runs", str(tmp_path / "runs")]) == 0
    assert cli.main(["export", "optima_debate", "--preset", "smoke", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path / "out")]) == 0
    (line,) = read_registry(tmp_path / "runs")
    stages = [name for name in line["settings"]["stages"] if name.startswith("train-")]
    for stage, benchmark in zip(stages, ("toy_humaneval", "toy_hotpotqa"), strict=True):
        places = tmp_path / "runs" / stage / "adapter", tmp_path / "out" / benchmark / "adapter"
        one, other = (file_digest(place / "adapter_model.safetensors") for place in places)
        assert one == other


def test_an_export_copies_the_adapter_and_tells_its_scores(runs, tmp_path, capsys):
    (line,) = [line for line in read_registry(runs) if line["system"] == "optima_debate"]
    assert cli.main(["export", line["key"], "--runs", str(runs), "--to", str(tmp_path / "out")]) == 0
    (folder,) = (tmp_path / "out/toy_humaneval").iterdir()
    (original,) = runs.glob("train-*/adapter")
    assert (folder / "adapter_model.safetensors").read_bytes() == (original / "adapter_model.safetensors").read_bytes()
    card = ModelCard.load(folder / "README.md")
    assert UNSCORED not in card.text and line["key"] in card.text and card.data.eval_results[0].metric_args["tasks"] == 3
    scores = line["results"]["evaluation"]["toy_humaneval"]["greedy"]["score"]
    assert abs(card.data.eval_results[0].metric_value - sum(scores) / 3) < 1e-6
    assert UNSCORED in (original / "README.md").read_text()
    for options, told in ((("untrained_debate", "--preset", "smoke"), "no trained adapter"), (("optima_debats", "--preset", "smoke"), "optima_debate"),
                          (("optima_debate", "--preset", "smoke", "--to", str(tmp_path / "out")), "is there already")):  # fmt: skip
        capsys.readouterr()
        assert cli.main(["export", *options, "--runs", str(runs), *([] if "--to" in options else ["--to", str(tmp_path / "b")])]) == 2
        assert told in capsys.readouterr().err


def test_an_adapter_that_was_trained_before_cards_is_told_of(runs, tmp_path, capsys, monkeypatch):
    shutil.copytree(runs, tmp_path / "runs")
    (card,) = (tmp_path / "runs").glob("train-*/adapter/README.md")
    card.unlink()
    monkeypatch.setattr("optima.cli.export.verify", lambda folder: None)  # such a stage never had the file
    assert cli.main(["export", "optima_debate", "--preset", "smoke", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path / "out")]) == 2
    assert "before adapters had cards" in capsys.readouterr().err and not (tmp_path / "out").exists()
