"The first page's tables: whose number stands where."
import re
from pathlib import Path

import pytest

from optima.cli.main import parser
from optima.cli.reproduce import experiments
from optima.report import front_page as frontpage
from optima.report.against_paper import paper_values
from optima.report.published import article_values
from optima.run.registry import read_registry
from tools.picture import PICTURE

PUBLISHED = Path(__file__).parents[2] / "nbs" / "results"
LINES = [line for line in read_registry(PUBLISHED) if line["preset"] == "toy"]


def by_system(table) -> dict[str, list[str]]:
    "A table's rows by their first cell."
    return {cells[0]: cells[1:] for cells in table.cells[1:]}


def test_each_row_stands_beside_the_sources_own():
    article, paper = by_system(frontpage.article_table(LINES)), by_system(frontpage.paper_table(LINES))
    values, theirs = article_values()["Optima (Debating)"], paper_values("table1")["Optima-iSFT", "GSM8K"]
    assert list(article) == list(frontpage.ARTICLE_ROWS) and article["optima_debate"][2] == "Optima (Debating)"
    assert article["optima_debate"][3].split(", ") == [f"{values[name]:.1f}" for name in ("HumanEval", "MBPP", "HotpotQA", "MATH")]
    assert paper["isft"][2] == "Optima-iSFT" and paper["isft"][3].split(", ")[2] == f"{theirs['score']:.1f}"
    assert paper["isft"][4].split(", ")[2] == f"{theirs['tokens']:.1f}"


def test_rows_that_a_source_lacks_have_dashes():
    article, paper = by_system(frontpage.article_table(LINES)), by_system(frontpage.paper_table(LINES))
    for cells in (article["random_selection_debate"], article["terse_debate"], paper["tuned_single"], paper["random_selection"]):
        assert cells[2:] == ["–"] * 3 and "–" not in "".join(cells[:2])


def test_headings_say_whose_numbers_they_are():
    for table, source in ((frontpage.article_table(LINES), "article"), (frontpage.paper_table(LINES), "paper")):
        heading = table.cells[0][1:]
        assert all(("toy" in name) != (source in name) for name in heading) and sum(source in name for name in heading) == 3


def test_captions_and_sentences_come_from_the_lines():
    one = [line for line in LINES if line["seed"] == 0]
    for make in (frontpage.article_table, frontpage.paper_table):
        assert "resample 3 seeds" in make(LINES).caption and "1 seed" in make(one).caption
    told = frontpage.tuned_words(LINES)
    assert [sentence.split()[0] for sentence in told] == ["isft", "idpo", "isft_dpo"] and all("tuned_single" in sentence for sentence in told)


def test_the_best_prompts_are_the_registrys():
    found = [name for line in LINES if line["system"].startswith("terse_") for name in line["results"]["evaluation_strategy"].values()]
    told = frontpage.chosen_words(LINES)
    assert found and all(f"`{name}` {found.count(name)} times" in told for name in found) and told.endswith(f" of {len(found)}.")
    assert "`terse` 1 times of 1." in frontpage.chosen_words([{"system": "terse_debate", "results": {"evaluation_strategy": {"toy_math": "terse"}}}])


@pytest.mark.parametrize("name", ["main_results", "paper_main"])
def test_the_command_under_a_table_runs_its_lines_and_no_other(name):
    told = frontpage.again(LINES, name)
    command, taken = re.match(r"`optima (.*)` makes these numbers again: (\d+) minutes", told).groups()
    chosen = parser().parse_args(command.split())
    runs = [(settings.system, settings.seed) for settings in experiments(chosen.only, chosen.preset, chosen.seeds)]
    assert sorted(runs) == sorted((line["system"], line["seed"]) for line in frontpage.lines_of(LINES, name))
    assert abs(float(taken) - frontpage.minutes(LINES, (name,))) <= 0.5


def test_a_stage_that_artefacts_share_is_counted_once():
    once = frontpage.minutes(LINES, ("main_results",))
    assert 0 < once == frontpage.minutes(LINES, ("main_results", "token_cost")) < frontpage.minutes(LINES, frontpage.ARTICLE)


def test_the_picture_is_what_the_registry_draws(tmp_path):
    drawn = frontpage.picture(LINES)
    assert drawn.save(tmp_path / "drawn.svg").read_text() == PICTURE.read_text(), "draw it again: python tools/picture.py"
    row = frontpage.means(frontpage.rows_of_article(LINES))["optima_debate"]
    assert f"optima_debate {row['score']:.2f} at {row['tokens']:.0f} tokens" in drawn.alt
