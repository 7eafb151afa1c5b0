"Tables, figures, published numbers, and the artefact notebook on a made-up registry."
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import synthetic
from nbclient import NotebookClient

from optima.errors import OptimaError
from optima.evaluation import comparisons, report_rows
from optima.launcher import declared_parameters
from optima.results import (
    Table,
    beside_table,
    budget_rows,
    comparison_table,
    contrast_table,
    control_gate,
    finding,
    format_interval,
    learning_figure,
    main_table,
    not_comparable,
    provenance,
    published,
    published_table,
    rows_of,
    saved_dialogue,
    score_tokens_figure,
    status_table,
    table_html,
    typical_task,
)

ARTEFACT = Path(__file__).parents[1] / "nbs/reproduce/main_results.ipynb"
LINES = synthetic.lines()
ROWS, COMPARED = report_rows(LINES), comparisons(LINES)


def test_table_in_three_ways():
    table = Table([{"a": "x|<i>", "b": 10}, {"a": "y", "b": 9}], {"a": lambda r: r["a"], "b": lambda r: str(r["b"])}, "c")
    assert str(table) == "c\na       b\n---------\nx|<i>  10\ny       9" == repr(table)
    assert table.markdown() == "c\n\n| a | b |\n| --- | ---: |\n| x\\|<i> | 10 |\n| y | 9 |"
    assert "x|&lt;i&gt;" in table_html(table) and "<i>" not in table_html(table)
    ElementTree.fromstring(table_html(table))


def test_empty_table():
    assert "score" in str(main_table([])) and "<tbody></tbody>" in table_html(comparison_table([]))


def test_main_table_shows_each_row_once():
    assert [row["benchmark"] for row in main_table(ROWS).rows] == ["toy_humaneval"] * 9
    both = report_rows(synthetic.lines(1, ("toy_humaneval", "another")))
    assert {row["benchmark"] for row in main_table(both).rows} == {"toy_humaneval", "another", "mean"}
    assert "resample tasks only" in main_table(both).caption and "3 seeds" in main_table(ROWS).caption


def test_numbers_and_missing_numbers():
    assert format_interval(0.25, (0.1, 0.4), 2, "+") == "+0.25 [+0.10, +0.40]"
    assert format_interval(None, None) == "–"


def test_words_follow_the_data():
    row = COMPARED[0]
    sentence = finding(row)
    assert f"the score is {row['verdict']}" in sentence and "the number of tokens is lower" in sentence
    unclear = finding(row | {"verdict": "no clear difference", "tokens_verdict": "higher"})
    assert "shows no clear difference" in unclear and "tokens is higher" in unclear


def test_the_gate_speaks_for_each_paradigm():
    def row(system, tokens, benchmark="b", decoding="greedy"):
        return {"system": system, "tokens": tokens, "benchmark": benchmark, "decoding": decoding}
    rows = [row("untrained_debate", 100.0), row("random_selection", 80.0), row("optima_debate", 10.0),
            row("untrained_multi_step", 100.0), row("random_selection_multi_step", 79.9), row("random_selection", 1.0, "b", "sampled")]
    held, failed = control_gate(rows)
    assert "keeps 80% of the tokens of untrained_debate on b, greedy decoding (80.0 of 100.0): the gate of 80% holds." in held
    assert failed.startswith("random_selection_multi_step") and "(79.9 of 100.0): the gate of 80% does not hold." in failed
    assert control_gate(rows[1:3]) == [] == control_gate([])


def test_status_table_counts_all_dialogues():
    for row in status_table(ROWS).cells[1:]:
        assert sum(map(int, row[1:])) == 180


def test_figure_is_svg_with_alt_text_and_the_page_colour():
    figure = score_tokens_figure(ROWS, "sampled", model="made up")
    root = ElementTree.fromstring(figure.svg)
    assert root.get("role") == "img" and root.get("aria-label") == figure.alt
    assert all(system in figure.alt for system in synthetic.SYSTEMS) and "currentColor" in figure.svg
    assert "#000000" not in figure.svg and "fill: #ffffff" not in figure.svg
    assert figure.svg == score_tokens_figure(ROWS, "sampled", model="made up").svg
    assert len(figure.svg) < 60_000


def test_figure_as_a_file_follows_the_reader(tmp_path):
    path = score_tokens_figure(ROWS).save(tmp_path / "figure.svg")
    assert "prefers-color-scheme:dark" in path.read_text() and ElementTree.parse(path)


def test_learning_figure():
    figure = learning_figure(LINES)
    assert "tokens of optima_debate: 40, 20" in figure.alt
    assert learning_figure([line for line in LINES if line["system"] == "single"]) is None


def test_budget_counts_a_shared_stage_once():
    generate, evaluate = budget_rows(LINES)
    assert (generate["stage"], generate["runs"], generate["seconds"]) == ("generate", 3, 90.0)
    assert generate["tokens_per_second"] == pytest.approx(3 * 64000 / 90)
    assert evaluate["runs"] == 2 * len(LINES)


def test_provenance_tells_of_a_tree_that_is_not_clean():
    assert "not committed" not in provenance(LINES)
    dirty = [LINES[0] | {"machine": {"clean": False}}]
    assert "not committed" in provenance(dirty) and "commit unknown" in provenance(dirty)


def test_published_numbers_are_the_shipped_file():
    assert len(published("article")) == 58 and len(published("article", "table1")) == 30
    values = {(row["method"], row["benchmark"]): row["value"] for row in published("article", "table1")}
    assert values["Optima (Debating)", "HumanEval"] == 85.7 and values["Optima (Multi-step)", "mean"] == 1840
    assert all(row["source"] == "paper" for row in published("paper"))


def test_published_refuses_unknown_names():
    with pytest.raises(OptimaError, match="table1"):
        published("article", "table9")
    with pytest.raises(OptimaError, match="article, paper"):
        published("blog")


@pytest.mark.parametrize("table", ["table1", "table3", "table4", "text"])
def test_each_article_table_shows(table):
    shown = published_table("article", table)
    assert len(shown.rows) >= 2 and all(heading.startswith("article: ") for heading in shown.columns)


def test_no_toy_number_under_a_heading_that_names_a_published_model():
    tables = [beside_table(ROWS, "toy_humaneval", "toy model"), contrast_table(COMPARED, "toy_humaneval"),
              main_table(ROWS, model="toy model"), comparison_table(COMPARED)]
    for table in tables:
        assert not any(re.search("llama|gpt", heading, re.IGNORECASE) for heading in table.columns)
    for heading, column in zip(tables[0].columns, zip(*tables[0].cells[1:])):
        assert heading.startswith(("ours", "article"))
        published_values = {"62.1", "67.4", "85.7", "87.3", "450", "1820", "2010", "1840", "–"}
        if heading.startswith("article") and "method" not in heading:
            assert set(column) <= published_values


def test_contrast_is_made_within_each_source():
    table = contrast_table(COMPARED, "toy_humaneval")
    assert [row["article"]["score"] for row in table.rows] == pytest.approx([18.3, 19.9])
    assert [row["article"]["tokens"] for row in table.rows] == pytest.approx([2010 / 1820, 1840 / 1820])


def test_not_comparable_comes_from_the_lines():
    told = " ".join(not_comparable(LINES, "toy_humaneval"))
    assert "toy model" in told and "3 seed(s)" in told and "mode self" in told


def test_beside_refuses_a_benchmark_without_counterpart():
    with pytest.raises(OptimaError, match="toy_humaneval"):
        beside_table(ROWS, "toy_human", "toy model")


def test_unknown_decoding():
    with pytest.raises(OptimaError, match="greedy, sampled"):
        rows_of(ROWS, "beam")


def test_typical_task_and_its_dialogue(tmp_path):
    line = next(line for line in LINES if line["system"] == "untrained_debate")
    task = typical_task(LINES, "untrained_debate", "toy_humaneval")
    columns = line["results"]["evaluation"]["toy_humaneval"]["greedy"]
    tokens = columns["tokens"][columns["task"].index(task)]
    assert tokens == sorted(columns["tokens"])[30]
    assert saved_dialogue(tmp_path, line, "toy_humaneval", task) is None
    synthetic.write_dialogues(tmp_path, line)
    dialogue = saved_dialogue(tmp_path, line, "toy_humaneval", task)
    assert dialogue.tokens == tokens and set(dialogue.rewards) == {"task"}


def run_artefact(runs, seeds):
    "Run the artefact notebook with `ensure` replaced by one that gives made-up lines."
    notebook = nbformat.read(ARTEFACT, as_version=4)
    stand_in = (
        "import sys, types\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import synthetic\n"
        "sys.modules['optima.launcher'] = types.SimpleNamespace(\n"
        "    ensure=lambda name, preset, seeds, runs: synthetic.lines(seeds))"
    )
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    given = nbformat.v4.new_code_cell(f"preset, seeds, runs = 'synthetic', {seeds}, {str(runs)!r}")
    notebook.cells.insert(place + 1, given)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(stand_in))
    return NotebookClient(notebook, timeout=60, kernel_name="python3").execute()


def outputs(notebook) -> str:
    "All that the notebook shows."
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(shown.get(kind, "")) for shown in data for kind in ("text/html", "text/markdown"))


def test_artefact_notebook_on_a_made_up_registry(tmp_path):
    for line in synthetic.lines(3):
        if line["seed"] == 0:
            synthetic.write_dialogues(tmp_path, line)
    notebook = run_artefact(tmp_path, 3)
    shown = outputs(notebook)
    assert all(finding(row) in shown for row in rows_of(COMPARED, "greedy"))
    assert all(sentence in shown for sentence in control_gate(ROWS, "greedy")) and len(control_gate(ROWS)) == 2
    assert "&lt;b&gt;made up&lt;/b&gt;" in shown and "<b>made up</b>" not in shown
    assert shown.index("greedy decoding") < shown.index("sampled decoding")
    assert shown.count("aria-label") == 3 and "LLaMA 3 8B (vanilla)" in shown
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert code[4] == 'lines = ensure("main_results", preset=preset, seeds=seeds, runs=runs)'
    (tmp_path / "main_results.ipynb").write_text(nbformat.writes(notebook))


def test_notebooks_opened_by_hand_share_the_clones_run_folder():
    runs = {path.name: declared_parameters(path)["runs"] for path in ARTEFACT.parent.glob("*.ipynb")}
    assert {"experiment.ipynb", "main_results.ipynb"} <= set(runs)
    assert {(ARTEFACT.parent / folder).resolve() for folder in runs.values()} == {ARTEFACT.parents[2] / "runs"}


def test_no_outcome_is_typed_into_the_artefact():
    text = "\n".join(cell.source for cell in nbformat.read(ARTEFACT, as_version=4).cells if cell.cell_type == "markdown")
    assert not re.search(r"\d\.\d|\d ?%|\d+ tokens", text)
