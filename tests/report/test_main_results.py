"Tables, figures and published numbers, on a made-up registry."
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import synthetic

from optima.base.errors import OptimaError
from optima.evaluate.statistics import comparisons, report_rows
from optima.report.dialogues import saved_dialogue, typical_task
from optima.report.figures import draw, empty_axes
from optima.report.main import (
    comparison_table,
    control_gate,
    finding,
    headline,
    learning_figure,
    main_table,
    provenance,
    rows_of,
    runs_listed,
    score_table,
    score_tokens_figure,
    status_table,
)
from optima.report.published import beside_table, contrast_table, not_comparable, published, published_table
from optima.report.tables import Table, format_interval, format_number, table_html

LINES = synthetic.lines()
ROWS, COMPARED = report_rows(LINES), comparisons(LINES)
WIDE = report_rows(synthetic.lines(1, synthetic.FOUR)), comparisons(synthetic.lines(1, synthetic.FOUR))


def test_table_in_three_ways():
    table = Table([{"a": "x|<i>", "b": 10}, {"a": "y", "b": 9}], {"a": lambda r: r["a"], "b": lambda r: str(r["b"])}, "c")
    assert str(table) == "c\na       b\n---------\nx|<i>  10\ny       9" == repr(table)
    assert table.markdown() == "c\n\n| a | b |\n| --- | ---: |\n| x\\|<i> | 10 |\n| y | 9 |"
    assert "x|&lt;i&gt;" in table_html(table) and "<i>" not in table_html(table)
    ElementTree.fromstring(table_html(table))


def test_empty_table():
    assert "score" in str(main_table([])) and "<tbody></tbody>" in table_html(comparison_table([]))


def test_main_table_shows_each_row_once():
    assert [row["benchmark"] for row in main_table(ROWS).rows] == ["toy_humaneval"] * len(synthetic.SYSTEMS)
    both = report_rows(synthetic.lines(1, ("toy_humaneval", "another")))
    assert {row["benchmark"] for row in main_table(both).rows} == {"toy_humaneval", "another", "mean"}
    mean, one = (main_table(both, benchmark=name) for name in ("mean", "another"))
    assert len(mean.rows) == len(one.rows) == len(synthetic.SYSTEMS) and "benchmark" not in mean.columns
    assert "mean" in mean.caption and "toy_humaneval" not in one.caption
    assert "resample tasks only" in main_table(both).caption and "3 seeds" in main_table(ROWS).caption


def test_score_table_has_the_articles_shape():
    wide = score_table(WIDE[0])
    assert [heading.split(":")[0] for heading in wide.columns] == ["system", *sorted(synthetic.FOUR), "mean", "mean"]
    assert [cells[0] for cells in wide.cells[1:]] == list(synthetic.SYSTEMS)
    assert list(score_table(ROWS).columns)[1:] == ["toy_humaneval: score [95 %]", "toy_humaneval: tokens [95 %]"]
    some = [row for row in WIDE[0] if (row["system"], row["benchmark"]) != ("single", "toy_math")]
    assert "–" in score_table(some).cells[1] and score_table([]).rows == []
    assert headline(ROWS) == "toy_humaneval" and headline(WIDE[0]) == "mean"


def test_numbers_and_missing_numbers():
    assert format_interval(0.25, (0.1, 0.4), 2, "+") == "+0.25 [+0.10, +0.40]"
    assert format_interval(None, None) == "–" == format_number(float("nan"))


def test_words_follow_the_data():
    row = COMPARED[0]
    sentence = finding(row)
    assert f"the score is {row['verdict']}" in sentence and "the number of tokens is lower" in sentence
    unclear = finding(row | {"verdict": "no clear difference", "tokens_verdict": "higher"})
    assert "shows no clear difference" in unclear and "tokens is higher" in unclear


def test_the_gate_speaks_for_each_paradigm():
    def row(system, tokens, benchmark="b", decoding="greedy"):
        return {"system": system, "tokens": tokens, "benchmark": benchmark, "decoding": decoding}
    rows = [row("untrained_debate", 100.0), row("random_selection_debate", 80.0), row("optima_debate", 10.0),
            row("untrained_multi_step", 100.0), row("random_selection_multi_step", 79.9), row("random_selection_debate", 1.0, "b", "sampled")]
    held, failed = control_gate(rows)
    assert "keeps 80% of the tokens of untrained_debate on b, greedy decoding (80.0 of 100.0): the gate of 80% holds." in held
    assert failed.startswith("random_selection_multi_step") and "(79.9 of 100.0): the gate of 80% does not hold." in failed
    assert control_gate(rows[1:3]) == [] == control_gate([])


def test_status_table_counts_all_dialogues():
    for row in status_table(ROWS).cells[1:]:
        assert sum(map(int, row[1:])) == 180


def test_figure_is_svg_with_alt_text_and_ink_on_a_ground():
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


def test_figure_as_an_image_keeps_every_character(tmp_path):
    figure, (axis,) = empty_axes()
    axis.set_xlabel("a & b's \"c\" <d> # 5 % é\n$")
    drawn = draw(figure, "it's <b> & \"so\"")
    image = ElementTree.fromstring(drawn._repr_html_().replace("'></figure>", "'/></figure>")).find("img")
    address = unquote(image.get("src").removeprefix("data:image/svg+xml,"))
    assert image.get("alt") == drawn.alt and address == re.sub(r"\s*\n\s*", " ", drawn.svg)
    assert "".join(ElementTree.fromstring(address).itertext()).count("a & b's \"c\" <d> # 5 % é") == 1


def test_learning_figure():
    figure = learning_figure(LINES)
    assert "tokens of optima_debate: 40, 20, 13.3" in figure.alt
    assert learning_figure([line for line in LINES if line["system"] == "single"]) is None
    assert "tokens of optima_debate: 40, 20, 13.3" in learning_figure(synthetic.lines(1, synthetic.FOUR)).alt
    before = [line | {"results": line["results"] | {"iterations": line["results"]["iterations"].get("toy_humaneval", [])}}
              for line in LINES]  # registries of before have one list for all benchmarks
    assert learning_figure(before).alt == figure.alt


def test_provenance_tells_of_a_tree_that_is_not_clean():
    assert "not committed" not in provenance(LINES)
    dirty = [LINES[0] | {"machine": {"clean": False}}]
    assert "not committed" in provenance(dirty) and "commit unknown" in provenance(dirty)
    assert "frozen by commit ffffffffff." in provenance(LINES) and "frozen" not in provenance(dirty)


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
    rows, compared = WIDE
    tables = [beside_table(rows, "toy model"), contrast_table(compared), main_table(rows, model="toy model"),
              comparison_table(compared), score_table(rows)]
    for table in tables:
        assert not any(re.search("llama|gpt", heading, re.IGNORECASE) for heading in table.columns)
    theirs = {f"{row['value']:g}" for row in published("article", "table1")} | {"–"}
    for heading, column in zip(tables[0].columns, zip(*tables[0].cells[1:])):
        assert heading.startswith(("ours", "article"))
        if heading.startswith("article") and "method" not in heading:
            assert set(column) <= theirs
    assert {"article: HumanEval pass@1 %", "article: HotpotQA F1", "article: MATH accuracy %"} <= set(tables[0].columns)


def test_contrast_is_made_within_each_source():
    table = contrast_table(COMPARED)
    shown = {cells[0]: cells[1:] for cells in table.cells[1:]}
    assert list(shown) == [f"optima_{team} against {other}" for team in ("debate", "multi_step")
                           for other in ("teacher_debate", f"untrained_{team}")]
    assert shown["optima_debate against untrained_debate"][1::2] == ["+18.3", "×1.10"]
    assert shown["optima_multi_step against teacher_debate"][1::2] == ["+3.9", "×0.33"]
    assert len(contrast_table(WIDE[1]).columns) == 1 + 2 * 4 + 2 and contrast_table([]).rows == []


def test_each_experiment_is_listed_with_its_key_and_minutes():
    told = runs_listed(LINES)
    assert told.startswith(f"<details><summary>The {len(LINES)} experiments</summary>") and told.count("\n| ") == 1 + 1 + len(LINES) and told.endswith("</details>")
    assert all(f"| {line['key']} |" in told for line in LINES)


def test_not_comparable_comes_from_the_lines():
    told = " ".join(not_comparable(LINES))
    assert "toy model" in told and "3 seed(s)" in told and "mode self" in told and "the article's HumanEval" in told


def test_unknown_decoding():
    with pytest.raises(OptimaError, match="greedy, sampled"):
        rows_of(ROWS, "beam")


def test_the_mean_is_left_out_beside_the_only_benchmark_and_kept_alone():
    wide = WIDE[0]
    alone = [row for row in wide if row["benchmark"] == "mean"]
    assert {row["benchmark"] for row in rows_of(alone, "greedy")} == {"mean"}
    assert len({row["benchmark"] for row in rows_of(wide, "greedy")} - {"mean"}) == 4
    one = [row for row in wide if row["benchmark"] in ("mean", wide[0]["benchmark"])]
    assert {row["benchmark"] for row in rows_of(one, "greedy")} == {wide[0]["benchmark"]}


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


def test_the_share_that_no_sandbox_could_judge_and_the_levels_stand_in_the_tables():
    row = ROWS[0] | {"statuses": {"passed": 6, "unsupported": 2}, "levels": {"bubblewrap": 3, "monty": 5}}
    plain = ROWS[0] | {"levels": {}}
    shown = main_table([row])
    assert shown.cells[1][shown.cells[0].index("unsupported")] == "0.250"
    assert "unsupported" not in main_table([plain]).columns
    headings, counts = status_table([row]).cells
    assert dict(zip(headings, counts)) == {"system": row["system"], "passed": "6", "unsupported": "2",
                                           "judged by bubblewrap": "3", "judged by monty": "5"}
