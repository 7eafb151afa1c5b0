"The report, opened from a file: nothing of what a model says runs, and figures are legible in light and dark."
import nbformat
import pytest

from browser.hostile import ATTACKS, WORDS, hostile_dialogue, taken_over
from browser.reader import luminance, seen_pixels, things, unseen
from optima.report.figures import Figure, draw, empty_axes
from optima.report.page import write_report
from optima.report.tables import Table
from tools.project import ROOT, notebooks

DARK = pytest.mark.parametrize("page", ["dark"], indirect=True)
BOTH = pytest.mark.parametrize("page", ["light", "dark"], indirect=True)


def open_report(page, folder, *shown: str):
    "Make the report of a notebook with these outputs, and open it."
    outputs = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in shown]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("shown", outputs=outputs)]), folder / "shown.ipynb")
    write_report([folder / "shown.ipynb"], folder / "report.html")
    page.goto((folder / "report.html").as_uri())


def line_figure():
    "A small figure with a hostile description."
    figure, (axis,) = empty_axes()
    axis.plot([1, 3, 2])
    axis.set_xlabel("a label")
    return draw(figure, WORDS)


@BOTH
def test_a_report_is_legible_and_inert(page, tmp_path):
    views = (hostile_dialogue(), line_figure(), Table([WORDS], {WORDS: str}, WORDS))
    open_report(page, tmp_path, *(view._repr_html_() for view in views))
    assert taken_over(page, "body") == []
    texts = len(views) - 1  # an image has no text
    assert [name for name, attack in ATTACKS.items() if page.inner_text("body").count(attack) < texts] == []
    assert [len(found) for found in things(page).values()] == [1, 1, 0, 1] and unseen(page, tmp_path) == []


def stored_figures() -> list[str]:
    "Every figure that is stored in a notebook."
    cells = [cell for path in notebooks() for cell in nbformat.read(ROOT / path, as_version=4).cells if cell.cell_type == "code"]
    shown = [output.get("data", {}).get("text/html", "") for cell in cells for output in cell.outputs]
    return [html for html in shown if html.startswith("<figure")]


@DARK
def test_stored_figures_are_legible_in_the_dark(page, tmp_path):
    open_report(page, tmp_path, *stored_figures())
    assert len(things(page)["figure"]) > 10 and unseen(page, tmp_path) == []


@BOTH
def test_a_colour_scheme_is_followed(page, tmp_path, request):
    open_report(page, tmp_path, line_figure()._repr_html_())
    _, background = seen_pixels(page.locator("figure"), tmp_path / "figure.png")
    assert (luminance(background) < 0.2) == (request.node.callspec.params["page"] == "dark")


@DARK
def test_black_text_in_the_dark_is_noticed(page, tmp_path):
    open_report(page, tmp_path, line_figure()._repr_html_().replace("currentColor", "%23000000"))
    assert len(unseen(page, tmp_path)) > 5


@pytest.mark.parametrize("second, said", [
    ('x="30" y="25"', ["figure 1: label and other overlap"]), ('x="30" y="25" transform="rotate(-90 30 25)"', ["figure 1: label and other overlap"]),
    ('x="9" y="36"', []), ('x="30" y="25" transform="rotate(45 30 25)"', []),
], ids=["on it", "upright", "below", "at a slant"])
def test_texts_that_lie_on_each_other_are_noticed(page, tmp_path, second, said):
    texts = f'<text x="9" y="20">label</text><text {second}>other</text>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60" font-size="14">{texts}<rect y="40" width="60" height="20"/></svg>'
    open_report(page, tmp_path, Figure(svg, "two texts")._repr_html_())
    assert unseen(page, tmp_path) == said


def test_attacks_that_are_not_escaped_are_noticed(page, tmp_path):
    embedded = WORDS.replace("src=x", "src='data:,'")  # an image beside the page would be refused before anything is shown
    open_report(page, tmp_path, f"<div>{embedded}</div>")
    assert {"image ran", "toggle ran", "svg ran", "IFRAME is live", "A is live"} <= set(taken_over(page, "body"))


def test_a_changed_title_is_noticed(page):
    page.set_content(ATTACKS["script"])
    assert taken_over(page, "body")[:2] == ["script ran", "the title was changed"]
