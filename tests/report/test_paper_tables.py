"The paper's numbers beside ours, and their pages, on a made-up registry."
import re

import nbformat
import pytest
import synthetic
from pages import in_process
from synthetic import alone

from optima.base.errors import OptimaError
from optima.cli.reproduce import declared_parameters
from optima.config.artefacts import ARTEFACTS
from optima.config.systems import PAPER_ROWS, system_of, system_order
from optima.evaluate.statistics import comparisons, first_tasks, report_rows
from optima.report.against_paper import (
    against_votes,
    box,
    closeness,
    contrasts,
    contrasts_table,
    counterpart,
    effort_table,
    listed,
    not_run,
    paper_block,
    paper_values,
    shown_rows,
    systems_table,
    way,
)
from optima.report.iterations import course_figure, course_rows, course_table, courses
from optima.report.paper_tables import (
    gain_rows,
    gain_table,
    growth_rows,
    learned_rows,
    learned_table,
    learned_words,
    transfer_cells,
    transfer_rows,
    transfer_table,
    transfers_not_run,
)
from optima.report.published import published
from tools.project import ROOT

PAGES = {name: tuple(about["systems"]) for name, about in ARTEFACTS.items() if name.startswith("paper_")}
LINES = synthetic.paper_lines(3)
COMPARED = comparisons(LINES)


def test_variants_stand_with_their_row_and_are_compared_with_their_like():
    names = ["paper_isft_dpo", "paper_isft_3", "paper_isft", "paper_sc", "optima_debate", "paper_isft_without_loss"]
    assert sorted(names, key=system_order) == ["optima_debate", "paper_sc", "paper_isft", "paper_isft_3", "paper_isft_without_loss", "paper_isft_dpo"]
    assert system_order("paper_isftt") > system_order("paper_isft_dpo") and system_of("paper_isftt").controls == ()


def test_pairs_are_compared_under_the_decodings_that_both_have():
    found = {(row["system"], row["against"], row["decoding"]) for row in COMPARED}
    assert found == {(f"paper_{row}", f"paper_{other}", "greedy") for row in ("isft", "idpo", "isft_dpo")
                     for other in ("untrained", "tuned_single", "random_selection")}
    with pytest.raises(OptimaError, match="paper_cots"):
        comparisons(LINES, [("paper_isft", "paper_cots")])


def test_the_paper_has_every_counterpart_that_is_claimed():
    for table, ends in (("table1", ("", " (vote)")), ("table3", ("_full", "_without_tokens", "_without_loss")), ("table6", ("",)), ("table7", ("", "_3"))):
        claimed = {counterpart(f"{system_of(name).label}{end}") for name in PAPER_ROWS for end in ends} - {""}
        assert claimed == {method for method, _ in paper_values(table)}, table
    assert counterpart("untrained_3") == counterpart("isft_per_role") == counterpart("random_selection") == ""


def test_a_contrast_is_made_within_each_source():
    row = next(row for row in contrasts(shown_rows(COMPARED)) if (row["system"], row["benchmark"]) == ("isft_dpo", "toy_2wikimultihopqa"))
    assert row["points"] == pytest.approx(74.2 - 25.9) and row["ratio"] == pytest.approx(54.9 / 543.7)
    own = next(each for each in COMPARED if (each["system"], each["against"], each["benchmark"]) == ("paper_isft_dpo", "paper_untrained", row["benchmark"]))
    assert row["difference"] == own["difference"] and row["tokens_ratio"] == own["tokens_ratio"]


@pytest.mark.parametrize(("verdict", "points", "found"), [
    ("higher", 3.0, "the same way"), ("higher", -3.0, "the other way"), ("no clear difference", 3.0, "no clear difference"),
    ("lower", 0.0, "no clear difference"), ("no clear difference", 0.0, "the same way")])
def test_which_way(verdict, points, found):
    assert way({"verdict": verdict, "points": points}, "score") == found
    assert way({"tokens_verdict": verdict, "ratio": 1 + points / 10}, "tokens") == found


def test_votes_stand_in_the_papers_place_and_are_paired_with_greedy_answers():
    both = [*LINES, *(line | {"results": {"evaluation": {name: {"vote": each["vote"]} for name, each in line["results"]["evaluation"].items()}},
                              "system": "paper_isft_full"} for line in alone(LINES, "paper_sc"))]
    names = list(dict.fromkeys(row["system"] for row in listed(shown_rows(report_rows(both)))))
    assert names == ["cot", "sc", "untrained", "autoform", "tuned_single", "random_selection", "isft", "isft_full (vote)", "idpo", "isft_dpo"]
    voted = against_votes(LINES)
    assert {row["against"] for row in voted} == {"paper_sc"} and all(row["seeds"] == 3 for row in voted)
    fewer = [line for line in LINES if line["system"] != "paper_sc" or line["seed"]]
    with pytest.raises(OptimaError, match="different seeds"):
        against_votes(fewer)


def test_no_toy_number_stands_in_a_column_that_says_llama():
    tables = [systems_table(listed(shown_rows(report_rows(LINES))), "toy model"), contrasts_table(contrasts(shown_rows(COMPARED)))]
    assert not [heading for table in tables for heading in table.columns if "llama" in heading.lower()]
    values = {f"{row['value']:g}" for row in published("paper")} | {"–"}
    for table in ("table1", "table2", "table3", "table6", "table7", "figure1"):
        block = paper_block(table)
        assert "Llama" in block.caption and "not measured by us" in block.caption and "toy" not in str(block)
        assert {text for cells in block.cells[1:] for text in cells[1:]} <= values
    assert "Llama 3.2 3B." in paper_block("table6").caption


def test_the_box_names_what_was_not_run():
    told = " ".join(not_run(LINES))
    assert "MMLU" in told and "HotpotQA, TriviaQA, MATH" in told and "Rows" not in told and "3 iterations (isft_dpo: 4) of the paper's 6" in told
    assert "; 3 seed(s)" in told and "Sizes: 3 iterations of the paper's 6" in " ".join(not_run(alone(LINES, "paper_isft")))
    without = not_run(alone(LINES, "paper_untrained", "paper_isft"))
    assert "Optima-iSFT-DPO SC" in without[2] and "MAD" not in without[2] and "Optima-iSFT SC" not in without[2]
    real = [line | {"results": {"evaluation": {"gsm8k": line["results"]["evaluation"]["toy_gsm8k"]}}} for line in LINES]
    assert "twins" not in " ".join(not_run(real)) and "GSM8K" not in " ".join(not_run(real))
    page = box(LINES, closeness(contrasts(shown_rows(COMPARED))), lacking=["<b>"])._repr_html_()
    assert "of 12 contrasts" in page and "&lt;b&gt;" in page


def test_transfer_is_paired_on_its_own_tasks():
    lines = synthetic.paper_lines(3, systems=("paper_untrained", "paper_isft"))
    assert [key[1:] for key in transfer_cells(lines)] == [("toy_2wikimultihopqa", "toy_cbt"), ("toy_arc", "toy_gsm8k"), ("toy_cbt", "toy_2wikimultihopqa"), ("toy_gsm8k", "toy_arc")]
    row = transfer_rows(lines)[0]
    home = next(line for line in lines if line["system"] == "paper_untrained")["results"]["evaluation"][row["benchmark"]]["greedy"]
    assert row["n"] == row["untrained"]["n"] == len(home["task"])
    short = [line | {"results": line["results"] | {"transfer": {a: {b: first_tasks(columns, 20) for b, columns in tested.items()}
             for a, tested in line["results"].get("transfer", {}).items()}}} for line in lines]
    row = transfer_rows(short)[0]
    assert row["n"] == row["untrained"]["n"] == 20 < len(home["task"])
    whole = [line["results"]["evaluation"][row["benchmark"]]["greedy"]["tokens"][: row["n"]] for line in lines if line["system"] == "paper_untrained"]
    assert row["tokens"] / row["untrained"]["tokens_ratio"] == pytest.approx(sum(map(sum, whole)) / (3 * row["n"]), rel=1e-4)
    assert transfer_rows(alone(lines, "paper_isft"))[0]["untrained"] is None and "–" in str(transfer_table(alone(lines, "paper_isft")))
    assert transfers_not_run([]) == ["Transfers: HotpotQA to 2WikiMultiHopQA, HotpotQA to TriviaQA, MATH to GSM8K."]


def test_tokens_by_the_number_of_agents():
    lines = synthetic.paper_lines(2, systems=PAGES["paper_three_agents"])
    rows = growth_rows(list(reversed(lines)), "toy_arc")
    assert [row["agents"] for row in rows] == [2, 3, 4, 5] and [row["tokens_ratio"] for row in rows] == pytest.approx([1, 1.5, 2, 2.5], rel=0.05)


def test_gains_are_over_the_untrained_team():
    rows = gain_rows(synthetic.paper_lines(2))
    systems = dict.fromkeys(row["system"] for row in rows)
    assert list(systems) == ["tuned_single", "random_selection", "isft", "idpo", "isft_dpo"]
    assert all(row["gain"] == row["tokens_ratio"] == 1 for row in rows if row["iteration"] == 0)
    assert {system: max(row["iteration"] for row in rows if row["system"] == system) for system in systems} == dict.fromkeys(systems, 3) | {"isft_dpo": 4}
    last = next(row for row in rows if (row["system"], row["iteration"]) == ("tuned_single", 3))
    assert last["tokens_ratio"] == pytest.approx(30 / 60, rel=0.1)  # against the untrained agent, not the team


def test_systems_of_different_numbers_of_iterations_share_a_figure_and_a_table():
    lines = alone(LINES, "paper_untrained", "paper_isft", "paper_isft_dpo")
    assert {system: way.shape for system, way in courses(lines, "score").items()} == {"isft": (3, 4), "isft_dpo": (3, 5)}
    assert [(row["system"], row["iteration"]) for row in course_rows(lines)] == [("isft", step) for step in range(4)] + [("isft_dpo", step) for step in range(5)]
    assert course_figure(lines) and len(course_table(lines).rows) == 9 == len(gain_table(gain_rows(lines), lines).rows)


def test_a_point_of_a_course_has_the_interval_of_an_evaluation_on_its_tasks():
    row = next(row for row in course_rows(LINES, "toy_arc") if (row["system"], row["iteration"]) == ("isft", 3))
    cut = [line | {"results": {"evaluation": {"toy_arc": {"greedy": first_tasks(line["results"]["evaluation"]["toy_arc"]["greedy"], synthetic.ITERATION_TASKS)}}}}
           for line in alone(LINES, "paper_isft")]
    whole = report_rows(cut, {})[0]
    assert (row["n"], row["seeds"]) == (whole["n"], whole["seeds"]) == (synthetic.ITERATION_TASKS, 3)
    for measure in ("score", "tokens"):
        assert row[measure] == pytest.approx(whole[measure], abs=1e-6) and row[f"{measure}_ci"] == pytest.approx(whole[f"{measure}_ci"], abs=1e-6)
    assert "20 tasks that every iteration was evaluated on; intervals resample 3 seeds" in course_table(LINES, "toy_arc").caption


def test_what_a_training_was_given_is_told_in_iterations_steps_and_tokens():
    shown = {cells[0]: cells[1:] for cells in effort_table(LINES, "synthetic numbers").cells[1:]}
    assert "untrained" not in shown and shown["tuned_single"][:3] == shown["isft"][:3] == ["3", "0", "72"]
    assert shown["isft_dpo"][:4] == ["4", "2", "56", "2048"] and shown["idpo"][1:3] == ["2", "32"]
    single = [line | {"cost": {"stages": [entry | {"tokens": entry["tokens"] // 2} for entry in line["cost"]["stages"]]}} for line in alone(LINES, "paper_tuned_single")]
    halved = {cells[0]: cells[-1] for cells in effort_table([*single, *alone(LINES, "paper_isft")], "synthetic numbers").cells[1:]}
    assert halved == {"tuned_single": "4,500", "isft": "9,000"}


def test_an_ablation_tells_on_how_much_each_row_was_trained():
    lines = synthetic.paper_lines(2, systems=PAGES["paper_ablation"])
    rows = learned_rows(lines)
    told = learned_words(rows)
    assert len(told) == 2 * (1 + 2 + 2)  # dialogues of three methods, pairs of two; each without either term
    assert told[1] == ("isft_without_loss was trained on 300 dialogues where isft_full had 540 (×0.56; least in iteration 1 on toy_2wikimultihopqa: 50 of 90), "
                       "the sums over seeds.") or told[0].startswith("isft_without_loss was trained on 300 dialogues")
    cells = {tuple(cells[:2]): cells[2:] for cells in learned_table(rows, lines).cells[1:]}
    assert cells["isft_dpo_without_loss", "toy_arc"] == ["25, 25 dialogues", "50, 50 pairs"] * 2
    assert cells["isft_full", "toy_arc"] == ["45, 45 dialogues"] * 3 + ["–"]


@pytest.mark.parametrize(("name", "seeds", "figures", "word"), [
    ("paper_main", 3, 2, "Published, not measured by us"), ("paper_ablation", 1, 1, "isft_without_tokens against isft_full"),
    ("paper_transfer", 2, 0, "9 transfers"), ("paper_three_agents", 2, 2, "From 2 to 5 agents"),
    ("paper_iterations", 2, 6, "after 3 trainings"), ("paper_scaling", 1, 5, "88.5 %")])
def test_pages_on_a_made_up_registry(tmp_path, monkeypatch, name, seeds, figures, word):
    monkeypatch.setattr("optima.cli.reproduce.ensure", lambda name, preset, seeds, runs: synthetic.paper_lines(seeds, systems=PAGES[name]))
    path = ROOT / f"nbs/artefacts/{name}.ipynb"
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert f'lines = ensure("{name}", preset=preset, seeds=seeds, runs=runs)' in cells[2].splitlines() and any("\nbudget_table(" in cell for cell in cells)
    shown = in_process(path, monkeypatch, {cells[1]: f"preset, seeds, runs, model = 'synthetic', {seeds}, {str(tmp_path)!r}, '8b'"})
    assert word in shown and shown.count("<figure") == figures and "minutes of one thread" in shown
    assert "How close we came" in shown and "What was not run" in shown and f"{len(PAGES[name]) * seeds} experiments" in shown
    told = re.sub("<details><summary>The .*?</details>", "", shown, flags=re.DOTALL)  # the list of experiments names them as the registry does
    assert "nan" not in re.sub("<img.*?>", "", shown) and not re.search(r"paper_(isft|idpo|sc|cot|untrained)", told)


@pytest.mark.parametrize("name", PAGES)
def test_parameters_and_prose_of_a_page(name):
    extra = {"model": "8b"} if name == "paper_main" else {}
    assert declared_parameters(ROOT / f"nbs/artefacts/{name}.ipynb") == {"preset": "toy", "seeds": 3, "runs": ""} | extra
    text = "\n".join(cell.source for cell in nbformat.read(ROOT / f"nbs/artefacts/{name}.ipynb", as_version=4).cells if cell.cell_type == "markdown")
    assert not re.search(r"\d\.\d|\d ?%|\d+ tokens", text)
