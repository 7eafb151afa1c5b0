"Questions of one's own: a file in a data folder is a benchmark, broken rows are named, splits hold, keys see the content."
import json
import random
from pathlib import Path

import pytest

from optima.base.errors import OptimaError
from optima.cli import main as cli
from optima.cli.fitness import data_findings
from optima.config.settings import load_settings
from optima.tasks.catalogue import benchmark_names, data_content, get_benchmark
from optima.tasks.task import SPLITS, assert_disjoint

ROWS = [{"question": f"{n} and 1 ?", "answer": str(n + 1)} for n in range(200)]


@pytest.fixture
def bring(tmp_path):
    "Writes questions (rows, or lines as they are) under a name; gives the data folder."
    def write(rows, name="mine") -> str:
        path = Path(tmp_path, "data", name, "questions.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
        return str(tmp_path / "data")
    return write


def every(data: str, name="mine") -> dict[str, list]:
    return {split: get_benchmark(name, data).load(split, 10**6, 0) for split in SPLITS}


def test_a_file_is_a_benchmark_and_its_splits_share_nothing(bring):
    found = every(bring(ROWS))
    sizes = {split: len(tasks) for split, tasks in found.items()}
    assert sum(sizes.values()) == 200 and 110 < sizes["train"] < 170 and 8 < sizes["development"] < 35 and 20 < sizes["evaluation"] < 60
    assert_disjoint(found["train"], [*found["development"], *found["evaluation"]])
    assert_disjoint(found["development"], found["evaluation"])
    assert {task.benchmark for tasks in found.values() for task in tasks} == {"mine"}


def test_what_is_asked_decides_the_split(bring):
    def places(data): return {" ".join(task.question.lower().split()): split for split, tasks in every(data).items() for task in tasks}
    before = places(bring(ROWS))
    more = [{"question": f"{n} and 2 ?", "answer": str(n + 2)} for n in range(50)]
    other = [{"answer": "other", "question": "  " + row["question"].upper().replace(" ", "  "), "id": 7} for row in ROWS]
    random.Random(0).shuffle(other)
    assert before.items() <= places(bring(more + other)).items()


def test_more_tasks_begin_with_the_fewer_and_seeds_draw_other_orders(bring):
    mine = get_benchmark("mine", bring(ROWS))
    assert mine.tasks("train", 20)[:5] == mine.tasks("train", 5) != mine.tasks("train", 5, seed=1)
    with pytest.raises(OptimaError, match="mine has .* tasks in evaluation, not 190"): mine.tasks("evaluation", 190)


def test_every_field_of_a_task_can_be_given(bring):
    row = {"question": "q ?", "answer": "a", "aliases": ["b"], "passages": ["p", "r"], "supporting": [1], "metric": "f1", "id": None}
    (task,) = [task for tasks in every(bring([row, ""])).values() for task in tasks]
    assert (task.id, task.aliases, task.passages, task.supporting, task.metric) == ("mine/1", ("b",), ("p", "r"), (1,), "f1")
    code = {"question": "q", "metric": "tests", "tests": "assert f(1) == 1", "entry_point": "f", "prefix": "def f(x):\n    return "}
    data = bring([code])
    assert get_benchmark("mine", data).metric == "tests"


GOOD = {"question": "1 and 1 ?", "answer": "2"}


@pytest.mark.parametrize("row, says", [
    ("{not json", "not JSON"), ("[1]", "expected one JSON object"), ({"answer": "2"}, "column 'question': is missing"),
    ({"question": " ", "answer": "2"}, "column 'question': is empty"), ({"question": "q"}, "column 'answer': is empty or missing"),
    ({"question": "q", "answer": 2}, "column 'answer': holds int, expected a text"),
    ({"question": "q", "answer": "a", "passages": "p"}, "column 'passages': holds str, expected a list, each of it a text"),
    ({"question": "q", "answer": "a", "passages": [1]}, "column 'passages': holds int"),
    ({"question": "q", "anwser": "a"}, "unknown column 'anwser'; choose one of: answer"),
    ({"question": "q", "answer": "a", "metric": "f2"}, "unknown metric 'f2'; choose one of: f1"),
    ({"question": "q", "answer": "a", "metric": "f1"}, "column 'metric': 'f1', where the first row has 'exact_match'"),
    ({"question": "q", "metric": "tests"}, "needs tests"), ({"question": "q", "answer": "a", "metric": "number"}, "is not one number"),
    ({"question": "q", "answer": "a", "supporting": [0]}, "supporting passages"),
    ({"question": "1  AND 1 ?", "answer": "two"}, "asks what row 1 asks"),
])
def test_a_broken_row_is_one_line_that_names_it(bring, row, says):
    with pytest.raises(OptimaError, match=r"questions\.jsonl, row 3") as caught:
        get_benchmark("mine", bring([GOOD, "", row]))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_file_and_a_name_of_the_packages_own_are_refused(bring):
    with pytest.raises(OptimaError, match="has no rows"): get_benchmark("mine", bring([]))
    with pytest.raises(OptimaError, match="'gsm8k' is a benchmark of the package"): get_benchmark("gsm8k", bring([GOOD], "gsm8k"))
    with pytest.raises(OptimaError, match="unknown benchmark 'min'; choose one of: mine"): get_benchmark("min", bring(ROWS))


def test_settings_know_it_and_their_key_sees_its_content(bring):
    data = bring(ROWS)
    assert "mine" in benchmark_names(data) and "mine" not in benchmark_names()
    def settings(): return load_settings("untrained_debate", overrides={"benchmarks": ["mine"], "data": data})
    before = settings().key
    assert before == settings().key
    bring([*ROWS, {"question": "one more ?", "answer": "x"}])
    assert settings().key != before
    with pytest.raises(OptimaError, match="unknown value of benchmarks: 'mine'"): load_settings("untrained_debate", overrides={"benchmarks": ["mine"]})
    assert data_content(("mine", "toy_math"), data).keys() == {"mine"}


def test_the_doctor_reads_it(bring):
    data = bring(ROWS)
    chosen = load_settings("untrained_debate", overrides={"benchmarks": ["mine"], "data": data})
    assert [fit for fit, _ in data_findings(chosen)] == [True]
    bring([{"question": ""}])
    assert [fit for fit, _ in data_findings(chosen)] == [False]


def test_a_run_from_the_command_line(bring, tmp_path, capsys):
    data, runs = bring(ROWS), str(tmp_path / "runs")
    few = ["evaluation_tasks=4", "decodings=greedy", "max_rounds=1"]
    assert cli.main(["run", "untrained_debate", "--preset", "smoke", "--data", data, "--benchmarks", "mine", "--runs", runs, "--set", *few]) == 0
    assert "mine" in capsys.readouterr().out
    bring(["{"])
    assert cli.main(["run", "untrained_debate", "--preset", "smoke", "--data", data, "--benchmarks", "mine", "--runs", runs, "--set", *few]) == 2
    assert "row 1: not JSON" in capsys.readouterr().err
