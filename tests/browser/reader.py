"What a reader does with a notebook in JupyterLab, and what there is to see."
import io
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

OUTPUT = ":is(.jp-OutputArea-output, .output_subarea)"  # in JupyterLab, in the report
DIALOGUE = re.compile(r"^\d+ messages? · (\d+ tokens?|tokens not counted)\b")  # the last line of a dialogue
KINDS = {"figure": f"{OUTPUT} figure img", "table": f"{OUTPUT} table", "picture": ".jp-RenderedMarkdown img"}
STEP, RUN = 60_000, 240_000  # milliseconds; generous, since the machine may be busy
MIN_WIDTH, MIN_HEIGHT = 40, 20  # pixels
CLEARLY, MIN_INK = 40, 0.002  # of 255 levels from the background; share of pixels that are so far from it
MIN_CONTRAST = 3  # WCAG, for large and for graphical text
MAX_OVERLAP = 3  # pixels: a line's box is that much higher than its letters

# Pairs of texts whose boxes share more than so many pixels in both directions; those of text at a slant are too large to say.
OVERLAPS = """most => {
    const level = text => { const {b, a} = text.getScreenCTM(); return Math.min(Math.abs(a), Math.abs(b)) < 1e-6 };
    const seen = [...document.querySelectorAll('text')].filter(text => text.textContent.trim() && level(text));
    const boxes = seen.map(text => [text.textContent.trim(), text.getBoundingClientRect()]);
    const shared = (a, b) => Math.min(Math.min(a.right, b.right) - Math.max(a.left, b.left),
                                      Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
    return boxes.flatMap(([name, box], place) =>
        boxes.slice(place + 1).filter(([, other]) => shared(box, other) > most).map(([other]) => [name, other])) }"""

# JupyterLab lays out what comes into view, and that moves the rest: until the element stays where it is.
SCROLL = """async element => { const frame = () => new Promise(requestAnimationFrame);
    for (let place = null, before = NaN, tries = 0; place !== before && tries < 60; tries++) {
        element.scrollIntoView({block: 'center', inline: 'center'}); await frame(); await frame();
        before = place; place = element.getBoundingClientRect().top } }"""

PANEL = "const panel = window.jupyterapp?.shell.currentWidget, session = panel?.sessionContext;"
CODE = "const code = [...panel.content.model.cells].filter(cell => cell.type === 'code' && cell.sharedModel.source.trim());"
READY = f"""path => {{ {PANEL}
    return panel?.context?.path === path && panel.context.isReady && session.isReady
        && session.session?.kernel?.connectionStatus === 'connected' && session.kernelDisplayStatus === 'idle' }}"""
ENDED = f"""() => {{ {PANEL} {CODE}
    const failed = code.some(cell => cell.outputs.toJSON().some(output => output.output_type === 'error'));
    const still = code.every(cell => cell.executionState === 'idle') && session.kernelDisplayStatus === 'idle';
    const asks = [...document.querySelectorAll('.jp-Dialog-content')].some(dialog => dialog.innerText.trim());
    return asks || still && (failed || code.every(cell => cell.executionCount)) }}"""
FAILED = f"""() => {{ {PANEL} {CODE}
    const told = (cell, what) => `${{cell.sharedModel.source.split('\\n')[0]}}: ${{what}}`;
    const asked = [...document.querySelectorAll('.jp-Dialog-content')].map(dialog => `JupyterLab asks: ${{dialog.innerText}}`);
    return asked.concat(code.flatMap(cell => {{
        const errors = cell.outputs.toJSON().filter(output => output.output_type === 'error');
        if (errors.length) return errors.map(error => told(cell, `${{error.ename}}: ${{error.evalue}}`));
        return cell.executionCount ? [] : [told(cell, 'did not run')] }})) }}"""


def open_notebook(page, lab, path: str):
    "Open a notebook in a workspace of its own, as its address in JupyterLab does."
    workspace = re.sub(r"\W", "-", path)
    page.goto(f"{lab.url}lab/workspaces/{workspace}/tree/{path}?token={lab.token}", timeout=STEP)


def open_without_kernel(page, lab, path: str):
    "Open a notebook whose kernel is not installed, and choose none."
    with explained(lab):
        open_notebook(page, lab, path)
        page.get_by_role("dialog").get_by_role("button", name="No Kernel").click(timeout=STEP)
        page.locator(OUTPUT).first.wait_for(state="attached", timeout=STEP)


@contextmanager
def explained(lab):
    "Say with an error of the browser's how the server stands."
    from playwright.sync_api import Error

    try:
        yield
    except Error as error:
        raise AssertionError(f"{error.message}\n{lab.last_words()}") from error


def run_all(page, lab, path: str) -> list[str]:
    "Open a notebook, run it through the menu, and return what failed or did not run, in words."
    with explained(lab):
        open_notebook(page, lab, path)
        page.wait_for_function(READY, arg=path, timeout=STEP)
        page.get_by_role("menuitem", name="Run", exact=True).click(timeout=STEP)
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click(timeout=STEP)
        page.wait_for_function(ENDED, timeout=RUN)
        return page.evaluate(FAILED)


def things(page) -> dict[str, list]:
    "Everything on the page that is there to be looked at, by kind; a dialogue is the box that holds its messages."
    found = {kind: page.locator(where).all() for kind, where in KINDS.items()}
    return found | {"dialogue": [line.locator("..") for line in page.locator(OUTPUT).get_by_text(DIALOGUE).all()]}


def seen_pixels(element, picture: Path) -> tuple[np.ndarray, tuple[int, int, int]]:
    "An element's pixels as the reader sees them, kept as a picture, and their commonest colour."
    shot = element.screenshot(path=picture, timeout=STEP)
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    return np.asarray(image, dtype=int), max(image.getcolors(image.width * image.height))[1]


def hidden(element) -> str:
    "Why a reader cannot see an element that is drawn, in words; '' where nothing is in the way."
    element.evaluate(SCROLL)
    if not element.is_visible():
        return "it is not displayed"
    box, window = element.bounding_box(), element.page.viewport_size
    if box["width"] < MIN_WIDTH or box["height"] < MIN_HEIGHT:
        return f"it is {box['width']:.0f} by {box['height']:.0f} pixels"
    if box["x"] >= window["width"] or box["y"] >= window["height"] or box["x"] + box["width"] <= 0 or box["y"] + box["height"] <= 0:
        return "it lies outside the window"
    if not element.evaluate("element => element.tagName !== 'IMG' || element.complete && element.naturalWidth > 0"):
        return "the image is missing"
    return ""


def pale(pixels: np.ndarray, background) -> str:
    "Whether hardly any pixel differs from the background, in words."
    ink = (abs(pixels - background).max(axis=2) > CLEARLY).mean()
    return "" if ink >= MIN_INK else f"{ink:.2%} of it differs from its background"


def luminance(colour) -> float:
    "WCAG's relative luminance of a colour of 255 levels."
    shares = np.asarray(colour) / 255
    return float(np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def ill_texts(figure, background, beside) -> list[str]:
    "The texts of a figure's SVG, opened in another page, that are hard to read, in words."
    beside.goto(figure.get_attribute("src"), timeout=STEP)
    beside.locator("svg").wait_for(timeout=STEP)
    return faint_texts(beside, background) + [f"{first} and {second} overlap" for first, second in beside.evaluate(OVERLAPS, MAX_OVERLAP)]


def faint_texts(opened, background) -> list[str]:
    "The texts of an SVG, opened in a page of its own, that hardly differ from the background on which they were seen."
    texts = opened.locator("text").evaluate_all("texts => texts.map(text => [text.textContent, getComputedStyle(text).fill])")
    faint = []
    for text, fill in texts:
        dark, light = sorted(map(luminance, (background, [int(float(level)) for level in re.findall(r"[\d.]+", fill)[:3]])))
        if (light + 0.05) / (dark + 0.05) < MIN_CONTRAST:
            faint.append(f"{text.strip()}: {fill} on {background}")
    return faint


def complaints(kind: str, element, picture: Path, beside) -> list[str]:
    "Why a reader cannot see an element, or read its texts."
    if why := hidden(element):
        return [why]
    pixels, background = seen_pixels(element, picture)
    if why := pale(pixels, background):
        return [why]
    return ill_texts(element, background, beside) if kind == "figure" else []


def unseen(page, folder: Path) -> list[str]:
    "What on the page a reader cannot see, in words; a picture of each thing is left in the folder."
    beside = page.context.new_page()
    faults = [f"{kind} {number}: {why}" for kind, elements in things(page).items() for number, element in enumerate(elements, 1)
              for why in complaints(kind, element, folder / f"{kind}-{number}.png", beside)]
    beside.close()
    return faults
