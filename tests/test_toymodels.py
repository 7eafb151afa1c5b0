"The shipped base: made by the recipe it names, whole, and firm in its habits."
import errno
import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest

import optima
from optima.cli import main
from optima.toymodels import SHIPPED, Recipe, make_model, make_tokenizer, train_base, vocabulary
from optima.toyworld import TOY_PROMPTS, toy_humaneval

CHECKPOINTS = sorted((Path(optima.__file__).parent / "checkpoints").glob("toy-base-*"))


def test_a_base_ships():
    assert CHECKPOINTS


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_the_manifest_names_the_recipe_and_every_file(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    recipe = asdict(SHIPPED) | {"seed": int(folder.name.rsplit("-", 1)[1])}
    assert manifest["recipe"] == recipe and 500_000 < manifest["parameters"] < 2_000_000 and manifest["seconds"] > 60
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "manifest.json"}
    assert manifest["sha256"] == files
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_the_shipped_tokenizer_is_the_one_that_the_chapter_makes(folder):
    from transformers import AutoTokenizer
    shipped, made = AutoTokenizer.from_pretrained(folder), make_tokenizer()
    assert shipped.get_vocab() == made.get_vocab() == {word: i for i, word in enumerate(vocabulary())}
    assert shipped.chat_template == made.chat_template


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_the_untrained_habit_is_firm_at_the_first_decision(folder):
    "On a knife edge any training flips a habit, and a placebo looks like a reward."
    import torch

    from optima.engines import load_model
    model, tokenizer = load_model(folder)
    chatty, shares = tokenizer.convert_tokens_to_ids('{"say":"'), []
    for task in toy_humaneval.tasks("development", 20):
        for role in ("single", "proposer", "planner"):
            chat = [{"role": "system", "content": TOY_PROMPTS["systems"][role]}, {"role": "user", "content": task.question}]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            with torch.no_grad():
                logits = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
            shares.append(logits.softmax(-1)[chatty].item())
    assert sum(shares) / len(shares) >= 0.75 and sum(share > 0.6 for share in shares) / len(shares) > 0.9


@pytest.fixture
def training(monkeypatch):
    "Weights without training, and a note of each time that they were asked for."
    asked = []

    def pretrain(recipe):
        asked.append(recipe)
        return make_model(recipe), [1.0]

    monkeypatch.setattr("optima.toymodels.pretrain", pretrain)
    return asked


TINY = ["toy", "train", "--out"]


@pytest.mark.parametrize("place", ["there", "file/base", "/proc/base"])
def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path, monkeypatch, training, capsys, place):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("file").write_text("kept")
    assert main([*TINY, place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "choose another folder" in line and training == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_a_killed_trainings_leftover_is_replaced(tmp_path, training):
    (tmp_path / "base.partial").mkdir()
    (tmp_path / "base.partial" / "old").write_text("")
    manifest = train_base(tmp_path / "base", Recipe(width=32, layers=1, feed_forward=32))
    assert [path.name for path in tmp_path.iterdir()] == ["base"] and len(training) == 1
    assert sorted([*manifest["sha256"], "manifest.json"]) == sorted(path.name for path in (tmp_path / "base").iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error: full (os error 28)")])
def test_a_disk_that_fills_up_is_one_line(tmp_path, training, monkeypatch, capsys, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    assert main([*TINY, str(tmp_path / "base")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the disk is full" in line and list(tmp_path.iterdir()) == []
