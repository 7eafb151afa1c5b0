"The shipped models: made by the recipes they name, whole, firm in their habits, and able to do what the tasks ask."
import errno
import json
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from statistics import fmean

import pytest

import optima
from optima.agents.paradigms import Prompts
from optima.agents.scheduler import Dialogue, run_dialogues
from optima.cli.main import main
from optima.rewards.terms import task_reward
from optima.tasks.catalogue import get_benchmark
from optima.toy.lookups import TOY_FAMILIES
from optima.toy.models import SHIPPED, TEACHER, Recipe, make_model, make_tokenizer, train_base, vocabulary
from optima.toy.talk import TOY_PROMPTS

FOLDER = Path(optima.__file__).parent / "toy" / "checkpoints"
BASES = sorted(FOLDER.glob("toy-base-*"))
MODELS = [*BASES, FOLDER / "toy-teacher"]
each_base = pytest.mark.parametrize("folder", BASES, ids=lambda folder: folder.name)
each_family = pytest.mark.parametrize("family", TOY_FAMILIES, ids=lambda family: family.name)
each_model = pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)


def test_three_bases_and_a_teacher_ship():
    assert [folder.name for folder in BASES] == [f"toy-base-{seed}" for seed in range(3)]
    assert MODELS[-1].is_dir()


@each_model
def test_the_manifest_names_the_recipe_and_every_file(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    base = folder in BASES
    assert manifest["recipe"] == (asdict(SHIPPED) | {"seed": int(folder.name[-1])} if base else asdict(TEACHER))
    assert ("base" if base else "teacher") in manifest["what"] and manifest["seconds"] > 60
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "manifest.json"}
    assert manifest["sha256"] == files
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6


@each_model
def test_the_shipped_tokenizer_is_the_one_that_the_chapter_makes(folder):
    from transformers import AutoTokenizer
    shipped, made = AutoTokenizer.from_pretrained(folder), make_tokenizer()
    assert shipped.get_vocab() == made.get_vocab() == {word: i for i, word in enumerate(vocabulary())}
    assert shipped.chat_template == made.chat_template


@lru_cache
def engine_of(folder):
    from optima.engines.loading import load_model
    from optima.engines.local import LocalEngine
    return LocalEngine(*load_model(folder), batch_size=128)


def held(folder, family, paradigm, strategy="none", n=50):
    "Greedy dialogues on development tasks."
    tasks = get_benchmark(family.name).tasks("development", n)
    dialogues = [Dialogue(task, paradigm, strategy) for task in tasks]
    return tasks, run_dialogues(dialogues, engine_of(folder), Prompts(**TOY_PROMPTS), temperature=0.0, max_message_tokens=112)


@each_model
def test_the_untrained_habit_is_firm_at_the_first_decision(folder):
    "On a knife edge any training flips a habit, and a placebo looks like a reward."
    import torch
    engine = engine_of(folder)
    words = [engine.tokenizer.convert_tokens_to_ids(word) for word in ('{"say":"', "hello")]
    for family in TOY_FAMILIES:
        shares = []
        for task in get_benchmark(family.name).tasks("development", 20):
            told = " ".join([*task.passages, task.question])
            for role in ("single", "proposer"):
                chat = [{"role": "system", "content": TOY_PROMPTS["systems"][role]}, {"role": "user", "content": told}]
                text = engine.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + ' {"say":"'
                with torch.no_grad():
                    ids = engine.tokenizer(text, return_tensors="pt", return_token_type_ids=False)
                    logits = engine.model(**ids).logits[0, -2:].softmax(-1)
                shares.append(float(logits[0, words[0]] * logits[1, words[1]]))
        assert fmean(shares) >= 0.7, family.name


SKILL = {"toy_humaneval": 0.9, "toy_mbpp": 0.85, "toy_hotpotqa": 0.9, "toy_math": 0.9}  # share of right answers


def score_of(folder, family, paradigm, strategy="none"):
    tasks, done = held(folder, family, paradigm, strategy)
    return fmean(task_reward(task, trajectory).value for task, trajectory in zip(tasks, done))


@each_model
@each_family
def test_asked_to_check_the_model_can_do_what_the_tasks_ask(folder, family):
    "A family whose steps the base cannot do has nothing that a reward could strengthen."
    assert score_of(folder, family, "single", "check") >= SKILL[family.name]


@each_base
@each_family
@pytest.mark.parametrize("paradigm", ["debate", "multi_step"])
def test_an_untrained_team_has_room_in_both_directions(folder, family, paradigm):
    assert 0.3 <= score_of(folder, family, paradigm) <= 0.7


@each_base
@each_family
def test_under_one_strategy_even_greedy_messages_are_malformed(folder, family):
    _, done = held(folder, family, "debate", "list", 20)
    assert fmean(trajectory.valid_share for trajectory in done) < 0.3


@pytest.fixture
def training(monkeypatch):
    "Weights without training, and a note of each time that they were asked for."
    asked = []

    def pretrain(recipe):
        asked.append(recipe)
        return make_model(recipe), [1.0]

    monkeypatch.setattr("optima.toy.models.pretrain", pretrain)
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
