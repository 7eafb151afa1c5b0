"The real benchmarks: every loader on fixtures in the true schema, splits kept apart, bad rows named, no network."
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optima.base.errors import OptimaError
from optima.cli import main as cli
from optima.config.settings import load_settings
from optima.sandbox.judge import run_tests
from optima.tasks import hub as benchmarks
from optima.tasks.catalogue import benchmark_names, data_content, get_benchmark
from optima.tasks.hub import PLANS, benchmark_rows, source_rows
from optima.tasks.hub_rows import SOURCES, last_boxed
from optima.tasks.metrics import score_text
from optima.tasks.task import SPLITS, assert_disjoint, deal

FIXTURES = Path(__file__).parents[1] / "fixtures"


def rows_of(source: str, split: str, data: Path = FIXTURES) -> list[dict]:
    return [json.loads(line) for line in (data / source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: list[dict]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def all_tasks(name: str, split: str, data: Path = FIXTURES) -> list:
    "Every task of a split."
    return get_benchmark(name, str(data)).load(split, 10**6, 0)


@pytest.fixture
def data(tmp_path) -> Path:
    "A copy of the fixtures that a test may spoil."
    return Path(shutil.copytree(FIXTURES, tmp_path / "data"))


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    "No network, and nothing in the hub's cache."
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_the_hub()
    yield tmp_path / "cache"
    forget_the_hub()


def forget_the_hub():
    "Let the hub be asked again."
    benchmarks.hub_folder.cache_clear()
    benchmarks.commit_of.cache_clear()


@pytest.mark.parametrize("source", SOURCES)
def test_fixtures_have_the_true_columns_and_enough_items(source):
    found = [row for split in SOURCES[source].files for row in rows_of(source, split)]
    assert len(found) >= 12
    assert all(row.keys() == SOURCES[source].columns.keys() for row in found)


@pytest.mark.parametrize("name", PLANS)
def test_every_benchmark_gives_tasks_whose_splits_share_nothing(name):
    assert name in benchmark_names()
    found = {split: all_tasks(name, split) for split in SPLITS}
    for one in SPLITS:
        for other in SPLITS[SPLITS.index(one) + 1:]:
            assert_disjoint(found[one], found[other])
    assert found["train"] and found["evaluation"]
    assert {task.metric for tasks in found.values() for task in tasks} == {get_benchmark(name).metric}
    assert len({task.id for tasks in found.values() for task in tasks}) == sum(map(len, found.values()))


@pytest.mark.parametrize("name", ["hotpotqa", "math", "humaneval", "mbpp"])
def test_fixtures_have_enough_for_the_smoke_preset(name):
    benchmark = get_benchmark(name, str(FIXTURES))
    assert [len(benchmark.tasks(split, n)) for split, n in (("train", 16), ("development", 4), ("evaluation", 8))] == [16, 4, 8]


def test_more_tasks_begin_with_the_fewer_and_seeds_draw_other_orders():
    benchmark = get_benchmark("math", str(FIXTURES))
    assert benchmark.tasks("train", 20)[:5] == benchmark.tasks("train", 5)
    assert benchmark.tasks("train", 5, seed=1) != benchmark.tasks("train", 5)
    with pytest.raises(OptimaError, match="math has 12 tasks in evaluation, not 13"):
        benchmark.tasks("evaluation", 13)


def test_development_depends_on_content_and_not_on_places(data):
    def keys(split): return {task.key for task in all_tasks("hotpotqa", split, data)}
    before = {split: keys(split) for split in SPLITS}
    rows = rows_of("hotpotqa", "train", data)
    for row in rows:
        row["id"] = "other-" + row["id"]
    random.Random(0).shuffle(rows)
    write_rows(data / "hotpotqa" / "train.jsonl", rows)
    assert {split: keys(split) for split in SPLITS} == before


def test_what_is_evaluated_is_not_trained_on_whatever_its_id_and_spelling(data):
    judged = rows_of("gsm8k", "test", data)
    leaked = [{"question": "  " + row["question"].upper().replace(" ", "\n"), "answer": row["answer"]} for row in judged]
    write_rows(data / "gsm8k" / "train.jsonl", rows_of("gsm8k", "train", data) + judged + leaked)
    kept = [task for split in ("train", "development") for task in all_tasks("gsm8k", split, data)]
    assert len(kept) == len(rows_of("gsm8k", "train"))
    assert not {row["question"].casefold() for row in judged} & {" ".join(task.question.casefold().split()) for task in kept}


def test_a_training_task_that_comes_twice_is_drawn_once(data):
    rows = rows_of("gsm8k", "train", data)
    write_rows(data / "gsm8k" / "train.jsonl", rows * 3)
    assert len(all_tasks("gsm8k", "train", data) + all_tasks("gsm8k", "development", data)) == len(rows)


def test_humaneval_is_evaluated_only_and_trains_on_what_mbpp_does_not_share():
    trained = [task for split in ("train", "development") for task in all_tasks("humaneval", split)]
    names = {task.entry_point for task in trained}
    shared = {"reads_both_ways", "even_sum"}  # evenSum is HumanEval's spelling
    assert {task.id.split("/")[0] for task in trained} == {"mbpp"} and {task.benchmark for task in trained} == {"humaneval"}
    assert not names & shared and len(names) == len(rows_of("mbpp", "train")) - len(shared)
    assert shared <= {task.entry_point for split in ("train", "development") for task in all_tasks("mbpp", split)}
    assert {task.id.split("/")[0] for task in all_tasks("humaneval", "evaluation")} == {"humaneval"}


def test_mmlu_is_without_the_items_of_arc():
    arc = {row["question"].casefold() for split in ("train", "validation", "test") for row in rows_of("arc_challenge", split)}
    for split in ("auxiliary_train", "test"):
        assert sum(row["question"].casefold() in arc for row in rows_of("mmlu", split)) == 2
    kept = [task for split in SPLITS for task in all_tasks("mmlu", split)]
    assert len(kept) == len(rows_of("mmlu", "auxiliary_train") + rows_of("mmlu", "test")) - 4
    assert not arc & {task.question.split("\nChoices:")[0].casefold() for task in kept}


def test_math_500_trains_on_math_without_its_own_problems():
    assert {task.id.split("/")[0] for task in all_tasks("math_500", "train")} == {"math"}
    assert len(all_tasks("math_500", "evaluation")) == 12


@pytest.mark.parametrize("text, wanted", [
    (r"\boxed{\frac{\frac{1}{2}}{3}}", r"\frac{\frac{1}{2}}{3}"), (r"\boxed{1} and \boxed{2}.", "2"), (r"\fbox{x}", "x"),
    (r"so $\boxed 7$", "7"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"), (r"\boxed{\left\{ x \mid x > 1 \right.}", r"\left\{ x \mid x > 1 \right."),
    (r"\boxed{{1}", ""), ("no box", ""), (r"\boxed {9}", "9")])
def test_the_last_box_with_its_braces(text, wanted):
    assert last_boxed(text) == wanted


def test_a_word_as_an_answer_is_no_product_of_letters():
    row = {"problem": "Which?", "solution": r"$\boxed{lemon}$", "level": "", "type": ""}
    answer = SOURCES["math"].convert(row)["answer"]
    assert answer == r"\text{lemon}"
    assert [score_text(said, [answer], "math").value for said in ("lemon", "Lemon", "melon")] == [1, 1, 0]


def test_gold_answers_are_right_by_their_own_metric():
    for name in PLANS:
        if PLANS[name].metric == "tests":
            continue
        for split in SPLITS:
            for task in all_tasks(name, split):
                for gold in (task.answer, *task.aliases):
                    assert score_text(gold, [task.answer, *task.aliases], task.metric).value == 1, (task.id, gold)


def solutions(name: str) -> dict[str, str]:
    "Row number -> reference solution."
    column = "canonical_solution" if name == "humaneval" else "code"
    return {f"{name}/{split}/{place}": row[column] for split in SOURCES[name].files for place, row in enumerate(rows_of(name, split))}


@pytest.mark.parametrize("name", ["humaneval", "mbpp", "mbpp_sanitized"])
def test_reference_solutions_pass_their_tests_or_are_known_to_be_unsupported(name):
    known, statuses = solutions(name), {}
    for task in [task for split in SPLITS for task in all_tasks(name, split) if task.id in known]:
        statuses[task.id] = run_tests(task.code(known[task.id]), task.tests, task.entry_point).status
    assert set(statuses.values()) <= {"passed", "unsupported"}, statuses
    assert list(statuses.values()).count("passed") >= 0.8 * len(statuses)


def judged(name: str, entry_point: str, answer: str | None = None):
    "What the tests of a task of the fixtures say of an answer; without one, of the reference solution."
    task = next(task for task in all_tasks(name, "evaluation") if task.entry_point == entry_point)
    return run_tests(task.code(answer or solutions(name)[task.id]), task.tests, entry_point)


def test_tests_may_call_helpers_of_the_prompt():
    task = next(task for task in all_tasks("humaneval", "evaluation") if task.entry_point == "sea_level")
    assert "import math" in task.tests and "def height" in task.tests  # slope, which the tests name, needs them
    assert "def unused" not in task.tests and "def sea_level" not in task.tests
    for name, wrong in (("sea_level", "    return 0.0"), ("decode_steps", "    return text")):
        assert judged("humaneval", name).passed and judged("humaneval", name, wrong).status == "failed"
    own = "def height(track, place): return 0.0\ndef sea_level(track): return 0.0"
    assert judged("humaneval", "sea_level", own).status == "failed"  # the tests have their own copy


@pytest.mark.parametrize("name, missing", [("longest_wait", "Stop"), ("river_ends", "Arm")])
def test_what_only_a_solution_defines_cannot_cross(name, missing):
    for answer in (None, "x = (", f"def {name}(x): return 1"):
        verdict = judged("mbpp", name, answer)
        assert verdict.status == "unsupported" and f"the tests use {missing}, which only a candidate" in verdict.detail


def test_a_whole_function_passes_where_a_body_is_expected():
    task = next(task for task in all_tasks("humaneval", "evaluation") if task.entry_point == "is_steep")
    whole = "def is_steep(a):\n    return poly(a, 2) - poly(a, 1) > 10"
    assert run_tests(task.code(whole), task.tests, task.entry_point).status == "passed"
    assert run_tests(task.code("    return False"), task.tests, task.entry_point).status == "failed"


def test_set_up_code_and_further_tests_are_hidden_and_used():
    tasks = {task.entry_point: task for split in SPLITS for task in all_tasks("mbpp", split)}
    basket, merged = tasks["basket_price"], tasks["merged"]
    assert "PRICES = " in basket.tests and "PRICES = " not in basket.question and "basket_price(" in basket.question
    assert "[1, 1]" in merged.tests and "[1, 1]" not in merged.question


def test_questions_over_passages_keep_them_whole():
    rows = {row["question"]: row for row in rows_of("hotpotqa", "train") + rows_of("hotpotqa", "validation")}
    for task in [task for split in SPLITS for task in all_tasks("hotpotqa", split)]:
        context, needed = rows[task.question]["context"], rows[task.question]["supporting_facts"]["title"]
        assert len(task.passages) == len(context["title"])
        for title, text, passage in zip(context["title"], context["sentences"], task.passages):
            assert passage.startswith(f"{title}: ") and all(sentence.strip() in passage for sentence in text)
        assert {context["title"][place] for place in task.supporting} == set(needed) & set(context["title"])


def test_odd_rows_are_loaded():
    hotpot = all_tasks("hotpotqa", "evaluation")
    assert any(task.passages == () == task.supporting for task in hotpot)
    assert any(len(set(task.passages)) < len(task.passages) for task in hotpot)
    assert {"yes", "no"} <= {task.answer for task in hotpot + all_tasks("hotpotqa", "train")}
    assert not all((task.question + task.answer).isascii() for task in hotpot)
    trivia = [task for split in SPLITS for task in all_tasks("triviaqa", split)]
    assert any(len(task.aliases) > 2 for task in trivia) and any(not task.passages for task in trivia)
    stories = all_tasks("cbt", "evaluation")
    assert all(len(set(task.passages)) == 20 and task.passages[0].startswith("1. ") for task in stories)
    assert any("," in task.answer for task in all_tasks("gsm8k", "train") + all_tasks("gsm8k", "evaluation"))
    assert any(row["answerKey"].isdigit() for row in rows_of("arc_challenge", "train"))


def random_task(rng: random.Random):
    "A question with 2 to 12 passages, some of them listed twice, of which two or three are needed."
    passages = [f"passage {number} " + "word " * rng.randrange(30) for number in range(rng.randrange(2, 13))]
    needed = rng.sample(range(len(passages)), min(len(passages), rng.choice([2, 2, 3])))
    listed = passages + rng.choices(passages, k=rng.randrange(4))
    order = list(range(len(listed)))
    rng.shuffle(order)
    listed = [listed[place] for place in order]
    return listed, [listed.index(passages[place]) for place in needed]


def test_dealing_over_random_seeds_needs_both_sides():
    rng, places = random.Random(7), []
    for seed in range(6000):
        passages, needed = random_task(rng)
        hands = deal(passages, 2, f"seed {seed}", needed)
        assert hands == deal(passages, 2, f"seed {seed}", needed)
        assert sorted(hands[0] + hands[1]) == sorted(set(passages))  # whole, each on one side
        wanted = {passages[place] for place in needed}
        assert wanted & set(hands[0]) and wanted & set(hands[1])
        if len(wanted) == 2:
            assert abs(len(hands[0]) - len(hands[1])) <= 1
            places += [(hand.index(text) + 0.5) / len(hand) for hand in hands for text in wanted if text in hand and len(hand) > 1]
    assert abs(sum(places) / len(places) - 0.5) < 0.02  # early is as likely as late (the error is 0.004)


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa"])
def test_the_fixtures_dealt_under_their_own_keys(name):
    dealt = 0
    for task in [task for split in SPLITS for task in all_tasks(name, split) if task.supporting]:
        hands = deal(task.passages, 2, task.key, task.supporting)
        wanted = {task.passages[place] for place in task.supporting}
        assert all(wanted & set(hand) for hand in hands) and not set(hands[0]) & set(hands[1])
        dealt += 1
    assert dealt >= 12


def spoil(data: Path, source: str, split: str, change) -> Path:
    "Change the third row of a file."
    path = data / source / f"{split}.jsonl"
    rows = rows_of(source, split, data)
    change(rows[2])
    write_rows(path, rows)
    return path


DEEP = "[" * 200_000 + "]" * 200_000


def put(**values): return lambda row: row.update(values)
def drop(name): return lambda row: row.pop(name)
def within(column, **values): return lambda row: row[column].update(values)


@pytest.mark.parametrize("name, split, change, column, words", [
    ("hotpotqa", "train", drop("question"), "question", "is missing or null, expected a text"),
    ("hotpotqa", "validation", put(answer=None), "answer", "is missing or null"),
    ("hotpotqa", "train", put(answer=7), "answer", "holds int, expected a text"),
    ("hotpotqa", "train", put(answer=" "), "answer", "is empty"),
    ("hotpotqa", "train", put(context=[]), "context", "holds list, expected a record of title, sentences"),
    ("hotpotqa", "train", within("context", title="x"), "context.title", "expected a list, each of it a text"),
    ("hotpotqa", "train", within("context", sentences=[["a"]]), "context", "titles and 1 texts"),
    ("hotpotqa", "train", within("context", sentences=["a"]), "context.sentences", "holds str"),
    ("2wikimultihopqa", "dev", put(context="[["), "context", "is no JSON"),
    ("2wikimultihopqa", "dev", put(context=DEEP), "context", "is no JSON: it is nested too deep"),
    ("2wikimultihopqa", "dev", put(supporting_facts='[["a"]]'), "supporting_facts", "no list of pairs"),
    ("2wikimultihopqa", "train", put(context='[["a", "b"]]'), "context", "without a list of sentences"),
    ("2wikimultihopqa", "train", put(context="{}"), "context", "holds dict, expected list"),
    ("triviaqa", "train", within("answer", value=""), "answer.value", "is empty"),
    ("triviaqa", "train", within("answer", aliases="x"), "answer.aliases", "holds str"),
    ("triviaqa", "train", within("search_results", title=[]), "search_results", "0 titles"),
    ("cbt", "train", put(answer="whale"), "answer", "'whale' is none of the options"),
    ("math", "train", put(solution=r"It is $\boxed{\frac{1}{2}$."), "solution", "boxes no answer"),
    ("math_500", "test", put(problem=""), "problem", "is empty"),
    ("gsm8k", "test", put(answer="It is 5."), "answer", "no number behind ####"),
    ("gsm8k", "train", put(answer="#### five"), "answer", "no number behind ####"),
    ("gsm8k", "train", put(answer="#### 3 or 5"), "answer", "'3 or 5' is not one number"),
    ("gsm8k", "test", put(answer="#### 1/2 5"), "answer", "'1/2 5' is not one number"),
    ("gsm8k", "test", put(answer="#### 1e99999999999999999999"), "answer", "is not one number"),
    ("math", "test", put(solution=r"It is $\boxed{-}$."), "solution", "'-' holds no formula"),
    ("arc_challenge", "train", put(answerKey="Z"), "answerKey", "'Z' is none of the labels"),
    ("arc_challenge", "train", within("choices", label=["A"]), "choices", "texts and 1 labels"),
    ("mmlu", "test", put(answer=4), "answer", "4 is no place among 4 choices"),
    ("mmlu", "test", put(answer=True), "answer", "holds bool, expected a whole number"),
    ("mmlu", "test", put(answer="B"), "answer", "holds str"),
    ("humaneval", "test", put(entry_point="nowhere"), "entry_point", "'nowhere' is no function of the prompt"),
    ("humaneval", "test", put(test="assert True"), "test", "has no function check"),
    ("humaneval", "test", put(test="def check(candidate):\n    assert candidate(1 == 1"), "test", "is no Python"),
    ("humaneval", "test", put(prompt="def decode_steps(text):\n    'no docstring"), "prompt", "is no Python"),
    ("mbpp", "test", put(test_list=["assert smallest_few([5, 1], 2 == [1]"]), "test_list", "is no Python"),
    ("mbpp", "test", put(test_list=["assert smallest_few(" + "-" * 20_000 + "1)"]), "test_list", "is no Python"),
    ("mbpp", "test", put(test_setup_code="import"), "test_setup_code", "is no Python"),
    ("mbpp", "test", put(challenge_test_list=["return 1"]), "challenge_test_list", "is no Python"),
    ("mbpp", "train", put(test_list=["assert other(1) == 1"]), "test_list", "calls no function that column 'code' defines"),
    ("mbpp_sanitized", "train", put(test_imports=None), "test_imports", "is missing or null"),
])
def test_a_bad_row_is_named_by_file_row_and_column(data, name, split, change, column, words):
    path = spoil(data, name, split, change)
    with pytest.raises(OptimaError) as caught:
        get_benchmark(name, str(data)).tasks("evaluation" if split == PLANS[name].evaluation[1] else "train", 1)
    assert str(caught.value).startswith(f"{path}, row 3, column {column!r}: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line, words", [("{", "row 2: not JSON"), ("[1]", "row 2: expected one JSON object"), ('"\\xff"', "row 2: not JSON"), (DEEP, "row 2: not JSON: it is nested too deep")], ids=["cut", "list", "bytes", "deep"])
def test_a_line_that_is_no_row(data, line, words):
    path = data / "gsm8k" / "train.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line.encode().decode("unicode_escape").encode("latin-1"), *lines[1:]]))
    with pytest.raises(OptimaError, match=re.escape(f"{path}, {words}")):
        get_benchmark("gsm8k", str(data)).tasks("train", 1)


def as_parquet(data: Path, source: str, split: str, name: str):
    "A split's rows as a parquet file under another name."
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = data / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows_of(source, split, data)), path)
    (data / source / f"{split}.jsonl").unlink()
    return path


@pytest.mark.parametrize("source, files", [
    ("hotpotqa", {"train": "distractor/train-00000-of-00001.parquet", "validation": "validation.parquet"}),
    ("gsm8k", {"train": "main/train-00000-of-00001.parquet", "test": "main/test-00000-of-00001.parquet"}),
    ("triviaqa", {"train": "train.parquet", "validation": "rc/validation-00000-of-00001.parquet"}),
    ("arc_challenge", {"test": "ARC-Challenge/test-00000-of-00001.parquet"})])
def test_parquet_gives_the_same_tasks_under_our_names_and_the_hubs(data, monkeypatch, source, files):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", data.parent / "datasets")
    for split, name in files.items():
        as_parquet(data, source, split, name)
    for split in SPLITS:
        assert all_tasks(source, split, data) == all_tasks(source, split)


def test_a_bad_row_and_a_bad_file_of_parquet(data, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", data.parent / "datasets")
    spoil(data, "gsm8k", "train", put(answer=None))
    path = as_parquet(data, "gsm8k", "train", "train.parquet")
    with pytest.raises(OptimaError, match=re.escape(f"{path}, row 3, column 'answer': is missing or null")):
        get_benchmark("gsm8k", str(data)).tasks("train", 1)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(OptimaError, match=re.escape(f"{path}: not readable as parquet")):
        get_benchmark("gsm8k", str(data)).tasks("train", 1)


def test_a_changed_file_is_read_again(data):
    before = all_tasks("gsm8k", "evaluation", data)
    write_rows(data / "gsm8k" / "test.jsonl", rows_of("gsm8k", "test", data)[:3])
    assert len(before) == 7 and len(all_tasks("gsm8k", "evaluation", data)) == 3


def test_files_that_are_not_there_or_there_twice(data):
    shutil.copy(data / "gsm8k" / "test.jsonl", data / "gsm8k" / "test.parquet")
    with pytest.raises(OptimaError, match=r"test\.jsonl and test\.parquet both stand for one split"):
        get_benchmark("gsm8k", str(data))
    shutil.rmtree(data / "arc_challenge")
    with pytest.raises(OptimaError, match=r"benchmark 'mmlu' needs split 'train' of arc_challenge at revision 210d"):
        get_benchmark("mmlu", str(data))
    assert get_benchmark("toy_math", str(data)) is get_benchmark("toy_math")


@pytest.mark.parametrize("name", PLANS)
def test_offline_one_line_says_what_is_missing_and_how_to_bring_it(empty_hub, name):
    source = SOURCES[PLANS[name].evaluation[0]]
    with pytest.raises(OptimaError) as caught:
        get_benchmark(name).tasks("evaluation", 1)
    for words in (repr(name), source.hub, source.revision, "hf download", "--repo-type dataset", "--data DIR"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_one_revision_and_for_data_files_only(monkeypatch):
    asked = []

    def snapshot_download(repo, **options):
        asked.append((repo, options))
        return str(FIXTURES / "gsm8k")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    benchmarks.hub_folder.cache_clear()
    assert [task.question for task in get_benchmark("gsm8k").tasks("evaluation", 7)] == \
        [task.question for task in get_benchmark("gsm8k", str(FIXTURES)).tasks("evaluation", 7)]
    benchmarks.hub_folder.cache_clear()
    assert asked == [("openai/gsm8k", {"repo_type": "dataset", "revision": SOURCES["gsm8k"].revision,
                                       "allow_patterns": ["main/train-*.parquet", "main/test-*.parquet"]})]
    assert all(pattern.endswith((".parquet", ".jsonl")) for source in SOURCES.values() for pattern in source.files.values())


def test_naming_a_benchmark_imports_no_library_and_opens_no_file():
    code = ("import sys, optima.tasks.hub\nfrom optima.tasks.catalogue import get_benchmark\n"
            "assert get_benchmark('hotpotqa').metric == 'f1'\nsys.exit(bool({'datasets', 'huggingface_hub', 'pyarrow'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_gives_every_fact_a_source():
    assert {row["benchmark"] for row in benchmark_rows()} == set(PLANS) and len(PLANS) == 12
    for row in source_rows():
        assert all(row.values()), row
        pinned = re.fullmatch(r"[0-9a-f]{40}", row["revision"])
        assert pinned or "unverified" in row["revision shown by"]


def test_keys_follow_the_datas_content_and_not_its_place(data, tmp_path):
    def key(folder, **more): return load_settings("single", "smoke", overrides={"benchmarks": ["gsm8k"], "data": str(folder), **more}).key
    other = Path(shutil.copytree(data, tmp_path / "elsewhere" / "data"))
    assert key(data) == key(other)
    settings = load_settings("single", "smoke", overrides={"benchmarks": ["gsm8k"], "data": str(data)})
    assert settings.to_dict()["data"] == "data" and str(tmp_path) not in json.dumps(settings.to_dict())
    rows_of_mbpp = rows_of("mbpp", "train", other)
    write_rows(other / "mbpp" / "train.jsonl", rows_of_mbpp[1:])
    assert key(data) == key(other)  # not of this benchmark
    write_rows(other / "gsm8k" / "test.jsonl", rows_of("gsm8k", "test", other)[::-1])
    assert key(data) != key(other)


def test_stage_keys_follow_the_tasks_and_not_the_folder(data, tmp_path):
    from optima.run.team import evaluation_tasks, talk_settings

    def talk(folder):
        settings = load_settings("single", "smoke", overrides={"benchmarks": ["gsm8k"], "data": str(folder), "evaluation_tasks": 7})
        return talk_settings(settings, evaluation_tasks(settings, "gsm8k"))

    other = Path(shutil.copytree(data, tmp_path / "elsewhere" / "data"))
    assert talk(data) == talk(other)
    spoil(other, "gsm8k", "test", put(answer="#### 77"))
    assert talk(data) != talk(other)


def test_keys_without_data_name_the_revisions_of_real_benchmarks_only():
    assert data_content(("toy_math",), "") == {} and "data" not in load_settings("single").to_dict()
    assert data_content(("humaneval", "toy_math"), "") == {"humaneval": {
        "humaneval/test": SOURCES["humaneval"].revision, "mbpp/train": SOURCES["mbpp"].revision}}


def test_a_reference_that_moves_is_keyed_by_the_commit_that_the_hub_gave(empty_hub):
    def key(): return load_settings("single", "smoke", overrides={"benchmarks": ["cbt"]}).key

    def give(commit: str):
        "Let the hub's cache hold this commit."
        folder = empty_hub / "datasets--cam-cst--cbt"
        reference = folder / "refs" / SOURCES["cbt"].revision
        (folder / "snapshots" / commit / "CN" / "test").mkdir(parents=True)
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
        forget_the_hub()

    assert data_content(("cbt",), "")["cbt"] == {f"cbt/{split}": "refs/convert/parquet" for split in ("test", "train")}
    keys = [key()]
    for commit in ("1" * 40, "2" * 40):
        give(commit)
        assert data_content(("cbt",), "")["cbt"] == {f"cbt/{split}": commit for split in ("test", "train")}
        keys.append(key())
    assert len(set(keys)) == 3


@pytest.mark.parametrize("command, words", [
    ("run single --data nowhere", "data = 'nowhere': there is no folder"),
    ("run single --benchmarks humanevil", "value of benchmarks: 'humanevil'; choose one of: humaneval"),
    ("run single --preset smoke --benchmarks triviaqa --data .", "benchmark 'triviaqa' needs split 'validation' of triviaqa"),
    ("run single --preset smoke --benchmarks gsm8k", "benchmark 'gsm8k' needs openai/gsm8k at revision 740312"),
])
def test_the_command_line_says_it_in_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, empty_hub, command, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "locks" not in path.parts and "cache" not in path.parts]


def test_a_bad_row_stops_the_command_line(data, tmp_path, monkeypatch, capsys):
    path = spoil(data, "gsm8k", "test", put(answer="five"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "single", "--preset", "smoke", "--benchmarks", "gsm8k", "--data", str(data)]) == 2
    assert f"optima: {path}, row 3, column 'answer'" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*-*"))


@pytest.mark.slow
def test_the_whole_loop_goes_over_real_schemas(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    small = ["iterations=1", "tasks_per_iteration=3", "strategies=none", "evaluation_tasks=2", "iteration_tasks=2",
             "decodings=greedy", "max_rounds=1", "max_message_tokens=24", "mode=self"]
    code = cli.main(["run", "--preset", "smoke", "--benchmarks", "hotpotqa,math,humaneval,mbpp", "--data", str(FIXTURES),
                     "--runs", str(tmp_path / "runs"), "--set", *small])
    output = capsys.readouterr().out
    assert code == 0
    assert all(re.search(rf"optima_debate +{name} ", output) for name in ("hotpotqa", "math", "humaneval", "mbpp"))
    assert "how dialogues ended" in output
