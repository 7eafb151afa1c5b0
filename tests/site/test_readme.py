"The first page: what may stand in it, and that its links lead somewhere."
import re

import nbformat
import pytest
from pages import in_process

from tools.project import CHAPTERS, ROOT, notebooks, project_files
from tools.readme import make_readme

INDEX = nbformat.read(ROOT / "nbs/index.ipynb", as_version=4)
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ["pip install -e . && optima reproduce", "pip install -e '.[dev]' && pytest"]
NOTEBOOK = "pip install -e '.[notebook]' && jupyter lab --notebook-dir=. nbs/tutorials/train_a_team.ipynb"
FIRST_SCREEN = ["Three ways in", "What came out", "Hardware and time", "Two commands", "Citing"]
TARGET = re.compile(r"\]\(([^)\s]+)\)")


def outside_code(text: str) -> str:
    "Markdown without its code blocks and code spans."
    return re.sub(r"`[^`]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def page() -> str:
    "All that a reader of the index sees."
    return "\n\n".join(cell.source for cell in INDEX.cells if cell.cell_type == "markdown")


def test_two_commands_and_no_other_for_set_up():
    assert re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL) == COMMANDS
    assert README.count("pip install") == len(COMMANDS) + 1 and README.count(f"`{NOTEBOOK}`") == 1


def test_the_first_screen_comes_first():
    assert re.findall(r"^## (.*)$", README, flags=re.MULTILINE)[: len(FIRST_SCREEN)] == FIRST_SCREEN
    sentence, picture = re.match(r"<!--.*-->\n\n# .*\n\n> (.*)\n\n!\[.*\]\((.*)\)\n\n", README).groups()
    assert sentence.endswith(".") and picture == "nbs/images/score_tokens.svg"


def test_code_is_not_shown():
    shown = [cell.source for cell in INDEX.cells if cell.cell_type == "code" and not cell.source.startswith("#| echo: false")]
    assert shown == []
    assert "from optima" not in README
    assert {cell.cell_type for cell in INDEX.cells} <= {"markdown", "code"}
    assert not any(cell.get("attachments") for cell in INDEX.cells)


@pytest.mark.parametrize(
    "forbidden",
    [r"<[a-zA-Z/!]", r"^:::", r"\{\{<", r"(?<!\w)@(fig|tbl|eq|sec)-", r"\$\$", r"^#\|", r"\{#[\w-]+\}", r"data:image"],
    ids=["html", "div", "shortcode", "reference", "equation", "directive", "attribute", "embedded image"],
)
def test_nothing_that_only_quarto_understands(forbidden):
    assert not re.findall(forbidden, outside_code(page()), flags=re.MULTILINE)


def test_images_are_committed_svgs_with_alt_text():
    images = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page())
    assert images
    for alt, target in images:
        assert len(alt) > 20 and target.endswith(".svg")
        assert (ROOT / "nbs" / target).relative_to(ROOT) in project_files()


def test_links_lead_to_files():
    for folder, text in ((ROOT / "nbs", page()), (ROOT, README)):
        local = [target for target in TARGET.findall(outside_code(text)) if not re.match(r"[a-z]+:|#", target)]
        assert [target for target in local if not (folder / target).exists()] == []


def test_each_chapter_is_listed_in_order():
    chapters = [path.relative_to("nbs").as_posix() for folder in CHAPTERS for path in notebooks(folder)]
    assert [target for target in TARGET.findall(page()) if target.partition("/")[0] in CHAPTERS and target.endswith(".ipynb")] == chapters


def stored(notebook) -> list[str]:
    "The Markdown that a notebook's cells show."
    return [output.data["text/markdown"] for cell in notebook.cells for output in cell.get("outputs", [])]


def test_the_tables_are_what_the_registry_says(monkeypatch):
    monkeypatch.chdir(ROOT / "nbs")
    shown = stored(INDEX)
    assert len(shown) == 6 and in_process("index.ipynb", monkeypatch) == "\n".join(shown)
    assert all(table.strip() in README for table in shown)


def test_each_table_has_its_command_under_it():
    under = re.findall(r"^\|.*\|\n\n`optima reproduce --only (\w+) --seeds \d+` makes these numbers again: \d+ minutes", README, re.MULTILINE)
    assert under == ["main_results", "paper_main"]


def test_maker_drops_hidden_cells_and_moves_links(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("# T\n\n[a](run/x.ipynb) [b](../LICENSE) [c](https://d.e) [f](#g)"),
        nbformat.v4.new_code_cell("#| hide\nsecret = 1"),
        nbformat.v4.new_code_cell("#| echo: false\nalso = 'secret'", outputs=[
            nbformat.v4.new_output("execute_result", {"text/markdown": "shown"}, execution_count=1)]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "index.ipynb")
    made = make_readme(tmp_path / "index.ipynb")
    assert made.endswith("# T\n\n[a](nbs/run/x.ipynb) [b](LICENSE) [c](https://d.e) [f](#g)\n\nshown\n")
    assert "secret" not in made
