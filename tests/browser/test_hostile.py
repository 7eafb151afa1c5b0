"What a model says is text: nothing of it runs in JupyterLab, run or stored, trusted or not."
import nbformat
import pytest
from nbformat.sign import NotebookNotary

from browser.hostile import ATTACKS, WORDS, hostile_dialogue, taken_over
from browser.reader import OUTPUT, SCROLL, open_without_kernel, run_all, things, unseen
from optima.agents.messages import write_jsonl
from optima.agents.viewer import annotated, side_by_side, slider, tokens_view
from optima.report.tables import Table

DIALOGUE = hostile_dialogue()
VIEWS = {
    "dialogue": DIALOGUE,
    "notes": annotated(DIALOGUE, {WORDS: [WORDS] * DIALOGUE.turns}),
    "side by side": side_by_side({WORDS: DIALOGUE, "other": DIALOGUE}),
    "slider": slider({WORDS: DIALOGUE, "other": DIALOGUE}),
    "tokens": tokens_view([WORDS, WORDS], [0, 1], WORDS),
    "table": Table([WORDS], {WORDS: str}, WORDS),
}


def stored(text: str, kind: str = "html"):
    "A cell with this output."
    output = nbformat.v4.new_output("display_data", {f"text/{kind}": text})
    return nbformat.v4.new_code_cell("shown", execution_count=1, outputs=[output])


def trust(lab, path: str):
    "Sign a notebook as one that its reader made."
    NotebookNotary(data_dir=lab.environment["JUPYTER_DATA_DIR"]).sign(nbformat.read(lab.root / path, as_version=4))


def unread(page) -> list[str]:
    "The attacks that an output does not show word for word."
    found = []
    for output in page.locator(OUTPUT).all():
        output.evaluate(SCROLL)  # what was never in view is not drawn, and has no text
        found += [name for name, attack in ATTACKS.items() if attack not in output.inner_text()]
    return found


def test_a_dialogue_that_is_run(lab, page, tmp_path):
    write_jsonl(lab.root / "hostile.jsonl", [DIALOGUE])
    show = "from optima.agents.messages import read_jsonl\nread_jsonl('hostile.jsonl')[0]"
    assert run_all(page, lab, lab.write_notebook("hostile.ipynb", nbformat.v4.new_code_cell(show))) == []
    assert taken_over(page, OUTPUT) == [] and unread(page) == []
    assert len(things(page)["dialogue"]) == 1 and unseen(page, tmp_path) == []


@pytest.mark.parametrize("trusted", [True, False])
def test_views_that_are_stored(trusted, lab, page):
    cells = [stored(view._repr_html_()) for view in VIEWS.values()]
    path = lab.write_notebook(f"stored-{trusted}.ipynb", *cells, kernel=f"none-{trusted}")
    if trusted:
        trust(lab, path)
    open_without_kernel(page, lab, path)
    assert taken_over(page, OUTPUT) == [] and unread(page) == []
    assert page.locator(OUTPUT).count() == len(VIEWS)


def test_attacks_that_are_not_escaped_are_noticed(lab, page):
    cells = [*(stored(f"<b>{attack}</b>") for attack in ATTACKS.values()), stored(WORDS, "markdown")]
    path = lab.write_notebook("unescaped.ipynb", *cells, kernel="none")
    trust(lab, path)
    open_without_kernel(page, lab, path)
    found = set(taken_over(page, OUTPUT))
    assert found >= {f"{name} ran" for name in ("script", "image", "frame", "toggle")}
    assert found >= {f"{tag} is live" for tag in ("SCRIPT", "IMG", "svg", "IFRAME", "DETAILS", "A")}
    assert set(unread(page)) == set(ATTACKS)
