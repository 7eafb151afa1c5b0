"What the artefacts say and show, and their notebooks, on a made-up registry."
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
import synthetic
from nbclient import NotebookClient
from pages import in_process
from synthetic import alone

from optima.base.files import write_text
from optima.cli.reproduce import declared_parameters
from optima.config.artefacts import ARTEFACTS
from optima.evaluate.statistics import SPOKEN, comparisons, report_rows
from optima.report.ablations import (
    PARTS,
    ablation_table,
    ablation_words,
    against_full,
    article_words,
    cost_table,
    in_words,
    saving_rows,
    saving_table,
    saving_words,
    standing,
    talk_table,
    two_dialogues,
    warnings_first,
)
from optima.report.budget import budget_rows, budget_table, read_expected, write_expected
from optima.report.iterations import (
    course,
    course_benchmarks,
    course_figure,
    course_table,
    courses,
    dominated,
    weight_figure,
    weight_rows,
    weight_table,
)
from optima.report.main import control_gate
from optima.report.published import published
from optima.run.registry import registry_text

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "nbs/artefacts"
MAIN = ("main_results", "token_cost")
NAMES = (*MAIN, "reward_ablation", "iterations", "reward_weights")
OTHERS = tuple(synthetic.ABLATIONS)
LINES = synthetic.lines(3, synthetic.FOUR)
ROWS = synthetic.lines(3, synthetic.FOUR, systems=OTHERS)  # ablations and grid, on two of the four
COMPARED = comparisons(LINES)


def without_phrases(line):
    "The line as registries of before have it."
    evaluation = {name: {decoding: {key: values for key, values in columns.items() if key not in SPOKEN}
                         for decoding, columns in decodings.items()} for name, decodings in line["results"]["evaluation"].items()}
    return line | {"results": {"evaluation": evaluation}}


def test_a_page_opens_with_a_control_that_was_not_beaten():
    assert warnings_first(COMPARED) == [] == warnings_first(comparisons(ROWS))
    drawn = alone(LINES, "optima_debate", "random_selection_debate")
    swapped = [line | {"system": "optima_debate" if line["system"].startswith("random") else "random_selection_debate"} for line in drawn]
    greedy, sampled = warnings_first(comparisons(swapped))
    assert greedy.startswith("**optima_debate does not beat random_selection_debate in score**") and "(mean, greedy" in greedy
    assert "sampled" in sampled
    assert warnings_first(comparisons(alone(LINES, "optima_debate", "terse_debate")))[0].startswith("**No team trained on")


def test_the_articles_comparison_comes_first():
    told = in_words(COMPARED)
    others = [re.search(r"against (\w+?)_(debate|multi_step) ", sentence)[1] for sentence in told]
    assert others == ["teacher"] * 2 + ["untrained"] * 2 + ["terse"] * 2 + ["random_selection"] * 2
    assert "(mean, greedy)" in told[0] and "toy_hotpotqa" in told[0] and "times fewer" in told[0]
    one = in_words(comparisons(synthetic.lines(1)), "sampled")
    assert len(one) == 8 and "(toy_humaneval, sampled)" in one[0] and one[0].endswith("on toy_humaneval.")


def test_the_article_in_its_own_words():
    told = " ".join(article_words())
    assert "5,640 / 1,840 = 3.07" in told and "1,820 / 1,840 = 0.99" in told and "Its text says 2.8" in told


def test_the_factors_of_a_saving_multiply_to_it():
    rows = saving_rows(LINES, "sampled")
    assert [(row["system"], row["against"]) for row in rows] == [
        (f"optima_{team}", other) for team in ("debate", "multi_step") for other in ("teacher_debate", f"untrained_{team}")]
    compared = {(row["system"], row["against"]): row for row in COMPARED if (row["benchmark"], row["decoding"]) == ("mean", "sampled")}
    for row in rows:
        product = np.prod([row[name][0] for name in ("turns", "content", "filler", "acknowledgement")])
        assert product == pytest.approx(row["tokens"][0]) == pytest.approx(row["turns"][0] * row["message"][0])
        assert row["tokens"][0] == pytest.approx(compared[row["system"], row["against"]]["tokens_ratio"], abs=1e-6)
        assert row["tokens"][1] == pytest.approx(compared[row["system"], row["against"]]["tokens_ratio_ci"], abs=1e-6)
        assert row["content"][1][0] <= row["content"][0] <= row["content"][1][1]


def test_the_saving_in_tables_and_words():
    table = saving_table(LINES)
    places = [place for place, heading in enumerate(table.columns) if heading.startswith("article")]
    assert [[cells[place] for place in places] for cells in table.cells[1:3]] == [["3.2", "2.8"], ["–", "–"]]
    assert "times shorter" in saving_words(LINES)[0]
    shown = talk_table(LINES)
    assert [cells[0] for cells in shown.cells[1:]] == list(synthetic.SYSTEMS) and set(PARTS) <= set(shown.rows[0])


def test_a_registry_of_before_knows_no_phrases():
    before = list(map(without_phrases, LINES))
    assert saving_table(before) is None and saving_words(before) == []
    assert talk_table(before).cells[1][1:] == ["–"] * 7 and cost_table(before)


def test_costs_beside_a_single_agents():
    table = cost_table(LINES)
    shown = {cells[0]: cells[1:] for cells in table.cells[1:]}
    assert shown["single"][1] == "×1.00 [1.00, 1.00]" and shown["single"][2:] == ["Single LLaMA 3 8B", "450", "1"]
    assert shown["optima_multi_step"][2:] == ["Optima (trained)", "1840", "4.1"] and shown["terse_debate"][2:] == ["–"] * 3
    assert len(cost_table(LINES + ROWS).rows) == len(synthetic.SYSTEMS)  # the ablations ran on other benchmarks
    assert cost_table(LINES[3:]) is None and len(cost_table(synthetic.lines(1)).rows) == len(synthetic.SYSTEMS)


def test_ablations_in_the_articles_order_beside_it():
    table = ablation_table(ROWS)
    assert [cells[0] for cells in table.cells[1:]] == list(synthetic.ABLATIONS)[:7]
    heading, full, last = table.cells[0], table.cells[5], table.cells[7]
    article = [place for place, text in enumerate(heading) if text.startswith("article")]
    assert [full[place] for place in article] == ["Full Optima", "70.1", "64.8", "1840"] and full[5:7] == ["–", "–"]
    assert [last[place] for place in article] == ["–"] * 4 and last[0] == "random_selection"
    assert all(text.startswith(("ours", "article")) for text in heading)
    assert not any(re.search("llama|gpt", text, re.IGNORECASE) for text in heading)
    differ = {(row["system"], row["benchmark"], row["decoding"]): row["difference"] for row in against_full(ROWS)}
    assert table.cells[3][5].startswith(f"{differ['without_task', 'mean', 'greedy']:+.3f}")


def test_ablations_in_words_and_with_less():
    told = ablation_words(ROWS, "sampled")
    assert len(told) == 6 and told[2].startswith("without_task against full (mean, sampled): the score is lower")
    some = synthetic.lines(1, ("toy_math",), systems=("full", "without_task"))
    assert len(ablation_table(some).rows) == 2 and "toy_math" in ablation_words(some)[0]
    assert ablation_table(alone(ROWS, "random_selection")) is None and ablation_words(LINES) == []


def test_iterations_start_at_the_untrained_team_on_the_same_tasks():
    line, before = alone(LINES, "optima_debate")[1], alone(LINES, "untrained_debate")[1]
    assert line["seed"] == before["seed"] == 1
    way = course(LINES, line, "toy_math", "score")
    greedy = before["results"]["evaluation"]["toy_math"]["greedy"]["score"]
    assert len(way) == synthetic.STEPS + 1 and way[0] == np.mean(greedy[:synthetic.ITERATION_TASKS])
    assert way[-1] == np.mean(line["results"]["evaluation"]["toy_math"]["greedy"]["score"][:synthetic.ITERATION_TASKS])
    turned = {name: values[::-1] for name, values in before["results"]["evaluation"]["toy_math"]["greedy"].items() if name != "status"}
    other = before | {"results": {"evaluation": {"toy_math": {"greedy": turned}}}}
    assert course([other], line, "toy_math", "score") == way


def test_iteration_figures():
    names = course_benchmarks(LINES)
    assert names == ["mean", *sorted(synthetic.FOUR)] and course_benchmarks(synthetic.lines(1)) == ["toy_humaneval"]
    lines = alone(LINES, *ARTEFACTS["iterations"]["systems"])
    curves = courses(lines, "tokens")
    assert list(curves) == ["random_selection_debate", "random_selection_multi_step", "optima_debate", "optima_multi_step"]
    assert curves["optima_debate"].shape == (3, 4)
    assert curves["optima_debate"] == pytest.approx(np.mean([courses(lines, "tokens", name)["optima_debate"] for name in names[1:]], axis=0))
    for name in names[:2]:
        figure = course_figure(lines, name)
        assert ElementTree.fromstring(figure.svg).get("aria-label") == figure.alt and "optima_multi_step" in figure.alt
    assert len(course_table(lines).rows) == 16
    assert course_figure(alone(LINES, "single", "terse_debate")) is None and course_table([]) is None


def test_an_iteration_without_its_untrained_team_has_no_start():
    only = alone(LINES, "optima_debate")
    assert np.isnan(courses(only, "score")["optima_debate"][:, 0]).all() and course_figure(only)
    assert course_table(only).cells[1][2:] == ["–", "–, –, –"] * 2


def test_the_front_of_the_weights():
    points = [{"score": score, "tokens": tokens} for score, tokens in ((0.5, 10), (0.5, 20), (0.7, 20), (0.6, 30), (0.5, 10))]
    assert [dominated(point, points) for point in points] == [False, True, False, True, False]
    rows = weight_rows(ROWS)
    assert [row["weight"] for row in rows] == [0, 0.1, 0.3, 0.6, 1.2] and rows[2]["share"] == pytest.approx(0.3)
    assert any(row["front"] for row in rows) and weight_rows(alone(ROWS, "full")) == []


def test_weight_figure_and_table():
    figure = weight_figure(ROWS, "sampled", "toy_math")
    root = ElementTree.fromstring(figure.svg)
    assert "toy_math, sampled" in root.get("aria-label") and figure.svg == weight_figure(ROWS, "sampled", "toy_math").svg
    table = weight_table(ROWS)
    assert len(table.rows) == 5 and weight_figure(LINES) is None and weight_table(LINES) is None
    assert len(weight_table(alone(ROWS, "without_efficiency", "efficiency_0.6")).rows) == 2


def test_budget_counts_a_shared_stage_once():
    lines = synthetic.lines(3)
    generate, train, evaluate = budget_rows(lines)
    assert (generate["stage"], generate["runs"], generate["units"], generate["seconds"]) == ("generate", 6, 6 * 640, 180.0)
    assert train["units"] == 6 * 3 * 24 and evaluate["runs"] == 2 * len(lines)
    assert generate["predicted_seconds"] is None and "predicted" not in budget_table(lines).caption


def test_an_earlier_run_predicts_the_next(tmp_path):
    expected = read_expected(write_expected(synthetic.lines(1, tasks=30), tmp_path / "expected.csv"))
    generate, train, evaluate = budget_rows(synthetic.lines(3), expected)
    assert generate["predicted_seconds"] == pytest.approx(generate["seconds"]) and train["predicted_tokens"] == train["tokens"]
    assert evaluate["predicted_seconds"] == pytest.approx(2 * evaluate["seconds"], rel=1e-4)  # twice the tasks of the earlier run
    elsewhere = [row for row in expected if row["paradigm"] == "debate"]
    assert budget_rows(synthetic.lines(1), elsewhere)[0]["predicted_seconds"] and "predicted" in budget_table(LINES, expected).caption
    assert read_expected(tmp_path / "none.csv") == [] and {"generate", "evaluate"} <= {row["stage"] for row in read_expected()}


def test_a_page_says_what_is_not_there_yet():
    assert standing(ROWS, "reward_ablation", ("full",)).startswith("30 experiments")
    assert "has no line of full" in standing(LINES, "reward_ablation", ("full",)) and "Not published yet" in standing([], "iterations")


def test_two_dialogues(tmp_path):
    lines = synthetic.lines(2)
    for line in lines:
        synthetic.write_dialogues(tmp_path, line)
    (untrained, task, before), (trained, same, after) = two_dialogues(lines, tmp_path, "optima_debate", "toy_humaneval")
    assert (untrained, trained) == ("untrained_debate", "optima_debate") and task == same and before.tokens > after.tokens
    assert two_dialogues(alone(lines, "optima_debate"), tmp_path, "optima_debate", "toy_humaneval") == []


def run_artefact(name, runs, seeds, benchmarks):
    "Run an artefact's notebook in a kernel, with `ensure` replaced by one that gives made-up lines."
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    stand_in = (
        "import sys, types\n"
        f"sys.path.insert(0, {str(ROOT / 'tests/support')!r})\n"
        "import synthetic\n"
        "sys.modules['optima.cli.reproduce'] = types.SimpleNamespace(\n"
        f"    PUBLISHED=None, ensure=lambda name, preset, seeds, runs: synthetic.lines(seeds, {benchmarks!r}))"
    )
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    given = nbformat.v4.new_code_cell(f"preset, seeds, runs = 'synthetic', {seeds}, {str(runs)!r}")
    notebook.cells.insert(place + 1, given)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(stand_in))
    return NotebookClient(notebook, timeout=120, kernel_name="python3").execute()


def outputs(notebook) -> str:
    "All that the notebook shows."
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(shown.get(kind, "")) for shown in data for kind in ("text/html", "text/markdown"))


def test_main_results_on_a_made_up_registry(tmp_path):
    for line in LINES:
        if line["seed"] == 0:
            synthetic.write_dialogues(tmp_path, line, "toy_hotpotqa")
    notebook = run_artefact("main_results", tmp_path, 3, synthetic.FOUR)
    shown, gate = outputs(notebook), control_gate(report_rows(LINES))
    places = [shown.index(sentence) for sentence in in_words(COMPARED)]
    assert places == sorted(places) and places[0] < shown.index("<table")
    assert all(sentence in shown for sentence in gate) and len(gate) == 10
    assert "&lt;b&gt;made up&lt;/b&gt;" in shown and "<b>made up</b>" not in shown
    assert shown.index("greedy decoding") < shown.index("sampled decoding")
    assert shown.count("<figure") == 3 and "LLaMA 3 8B (vanilla)" in shown


@pytest.mark.parametrize(("name", "seeds", "benchmarks", "figures", "word"), [
    ("main_results", 1, ("toy_humaneval",), 3, "resample tasks only"),
    ("token_cost", 3, synthetic.TWO, 0, "times shorter"),
    ("reward_ablation", 3, synthetic.TWO, 0, "Full Optima"),
    ("reward_ablation", 1, ("toy_math",), 0, "without_task against full (toy_math"),
    ("iterations", 3, synthetic.FOUR, 5, "tokens of each seed"),
    ("reward_weights", 1, synthetic.TWO, 4, "share of the reward"),
])
def test_artefacts_on_a_made_up_registry(tmp_path, monkeypatch, name, seeds, benchmarks, figures, word):
    systems = tuple(ARTEFACTS[name]["systems"])
    monkeypatch.setattr("optima.cli.reproduce.ensure", lambda name, preset, seeds, runs: synthetic.lines(seeds, benchmarks, systems=systems))
    path = NOTEBOOKS / f"{name}.ipynb"
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert f'lines = ensure("{name}", preset=preset, seeds=seeds, runs=runs)' in cells[2].splitlines()
    shown = in_process(path, monkeypatch, {cells[1]: f"preset, seeds, runs = 'synthetic', {seeds}, {str(tmp_path)!r}"})
    assert word in shown and shown.count("<figure") == figures and "minutes of one thread" in shown
    assert f"{len(systems) * seeds} experiments" in shown


@pytest.mark.parametrize("name", NAMES)
def test_published_pages_before_and_after_their_run(tmp_path, monkeypatch, name):
    monkeypatch.setattr("optima.cli.reproduce.PUBLISHED", tmp_path)
    page = NOTEBOOKS / f"{name}.ipynb"
    lines = synthetic.lines(2, synthetic.TWO, systems=(*synthetic.SYSTEMS, *OTHERS))
    write_text(tmp_path / "registry.jsonl", registry_text([line | {"preset": "toy"} for line in lines]))
    whole = in_process(page, monkeypatch)
    assert f"{2 * len(ARTEFACTS[name]['systems'])} experiments" in whole and "Not published yet" not in whole
    assert ("<figure" in whole) == (name in ("main_results", "iterations", "reward_weights"))
    assert ("<table" in whole) and "nan" not in re.sub("<img.*?>", "", whole)
    if name != "main_results":  # which has had lines since the first published run
        write_text(tmp_path / "registry.jsonl", registry_text([line | {"preset": "toy"} for line in alone(lines, "terse_debate")]))
        assert "Not published yet" in in_process(page, monkeypatch)


def test_pages_opened_by_hand_read_what_is_published_and_one_experiment_shares_the_clones_run_folder():
    runs = {path.stem: declared_parameters(path) for path in NOTEBOOKS.glob("*.ipynb")}
    assert {"experiment", *NAMES} <= set(runs)
    assert (NOTEBOOKS / runs["experiment"]["runs"]).resolve() == ROOT / "runs"
    assert all(runs[name] == {"preset": "toy", "seeds": 3, "runs": ""} for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_outcome_is_typed_into_an_artefact(name):
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not re.search(r"\d\.\d|\d ?%|\d+ tokens", text)


def test_the_articles_numbers_come_from_the_shipped_file():
    values = {f"{row['value']:g}" for table in ("table1", "table3", "table4", "text") for row in published("article", table)} | {"–"}
    for table in (cost_table(LINES), ablation_table(ROWS), saving_table(LINES)):
        for heading, *column in zip(*table.cells):
            if heading.startswith("article") and not heading.endswith((": row", ": system")):
                assert set(column) <= values


def test_a_course_lists_its_seeds_in_order_wherever_its_lines_stand():
    lines = alone(LINES, *ARTEFACTS["iterations"]["systems"])
    told = {system: seeds.tolist() for system, seeds in courses(lines, "score").items()}
    assert told == {system: seeds.tolist() for system, seeds in courses(lines[::-1], "score").items()}
