"The results pages on a made-up registry: what each must tell of its numbers."
import re

import nbformat
import pytest
import synthetic
from pages import in_process

from optima.base.files import write_text
from optima.config.artefacts import ARTEFACTS
from optima.run.registry import registry_text
from tools.project import ROOT

PAGES = ROOT / "nbs/artefacts"
CAPTION = re.compile(r"<caption[^>]*>(Ours.*?)</caption>(.*?)</table>", re.DOTALL)


def lacks(shown: str, prose: str, name: str) -> list[str]:
    "What a results page does not tell of its numbers."
    told = {
        "the experiments": re.search(r"<summary>The \d+ experiments</summary>", shown),
        "an interval": re.search(r"\[[+-]?\d+\.\d+, [+-]?\d+\.\d+\]", shown),
        "the command that makes it again": f"`optima reproduce --only {name} --seeds 3`" in prose and f"`notebooks/{name}.ipynb`" in prose,
    }
    tables = [(caption, table) for caption, table in CAPTION.findall(shown) if "[95 %]" in table]
    missing = [what for what, found in told.items() if not found] + ["a table with intervals"] * (not tables)
    return missing + [f"tasks and seeds: {caption}" for caption, table in tables  # comparisons have a column of tasks instead
                      if not (re.search(r"\d tasks", caption + table) and re.search(r"\d seed", caption))]


def prose_of(name: str) -> str:
    "A page's text."
    return "\n".join(cell.source for cell in nbformat.read(PAGES / f"{name}.ipynb", as_version=4).cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def registry() -> str:
    "A made-up registry of everything, as a text."
    article = synthetic.lines(2, synthetic.TWO, 30, (*synthetic.SYSTEMS, *synthetic.ABLATIONS))
    paper = synthetic.paper_lines(2, 30, tuple(name for about in ARTEFACTS.values() for name in about["systems"] if name.startswith("paper_")))
    return registry_text([line | {"preset": "toy"} for line in {line["key"]: line for line in (*article, *paper)}.values()])


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_page_tells_what_its_numbers_stand_on(tmp_path, monkeypatch, registry, name):
    monkeypatch.setattr("optima.cli.reproduce.PUBLISHED", tmp_path)
    monkeypatch.setattr("optima.agents.viewer.slider", lambda dialogues: f"a slider of {len(dialogues)}")  # dialogues are not made up here
    write_text(tmp_path / "registry.jsonl", registry)
    shown = in_process(PAGES / f"{name}.ipynb", monkeypatch)
    assert lacks(shown, prose_of(name), name) == []
    assert name not in ("paper_main", "paper_iterations", "paper_scaling", "paper_transfer", "paper_three_agents") or "to pay for training" in shown


def test_pages_say_what_the_glossary_says():
    for name in ARTEFACTS:
        text = prose_of(name)
        assert not re.search(r"placebo|same budget|team's budget|\d+ runs", text, re.IGNORECASE), name


@pytest.mark.parametrize(("right", "wrong", "complaint"), [
    ("; 30 tasks; ", "; ", "tasks and seeds: Ours"), ("resample 2 seeds, ", "resample ", "tasks and seeds: Ours"), ("3 experiments", "3 rows", "the experiments"),
    ("0.5 [0.4, 0.6]", "0.5", "an interval"), ("score [95 %]", "score", "a table with intervals")])
def test_a_planted_lack_is_found(right, wrong, complaint):
    page = ("<details><summary>The 3 experiments</summary></details><table><caption style='x'>Ours; 30 tasks; intervals resample 2 seeds, "
            "then tasks</caption><th>score [95 %]</th><td>0.5 [0.4, 0.6]</td></table>")
    link = "`optima reproduce --only iterations --seeds 3`, `notebooks/iterations.ipynb`"
    assert lacks(page, link, "iterations") == [] and lacks(page, "", "iterations") == ["the command that makes it again"]
    assert lacks(page.replace(right, wrong), link, "iterations")[0].startswith(complaint)
