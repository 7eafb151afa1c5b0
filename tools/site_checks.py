"""What must hold of every page of the site, found without Quarto: each check returns a line per defect.

Pages are what tools/pages.py leaves in _proc/; README and its like are checked as pages of the project's folder.
"""
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import mistune
import nbformat
import yaml

STORED_BYTES = 200_000
OUTSIDE = "leads out of the site"
FIELDS = {"title", "description", "output-file"}
NUMBER = re.compile(r"^\d+[a-z0-9]*_")
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
REFERENCE = re.compile(r"(?<![\w/.])@((?:fig|tbl|sec|eq)-[\w-]+)")
LABEL = re.compile(r"\{#([\w.:-]+)")
CELL_LABEL = re.compile(r"^#\| *label: *([\w.:-]+)", re.MULTILINE)
HEADING_ATTRIBUTES = re.compile(r"\s*\{[^}]*\}\s*$")
CELL_OPTION = re.compile(r"^#\|.*", re.MULTILINE)
RASTER = re.compile(r"data:image/(?!svg)|[^?#]*\.(?:png|jpe?g|gif|webp|bmp)(?:[?#]|$)", re.IGNORECASE)
DIV = re.compile(r"^:{3,}(.*)$", re.MULTILINE)
CALLOUT = re.compile(r"(?:\.|class=\")(callout-(?!(?:note|tip|important|caution|warning)\b)\w+)")
HTML_CALLOUT = re.compile(r"<div class=\"callout-\w+\">(.*?)(</div>|\Z)", re.DOTALL)
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)

parse_markdown = mistune.create_markdown(renderer=None, plugins=["table", "math", "strikethrough"])


def page_name(notebook: Path) -> str:
    "A page's name as nbdev makes it: lower case, without the number."
    return NUMBER.sub("", notebook.stem.lower())


def walk(tokens: list) -> Iterator[dict]:
    "Every token of parsed Markdown, depth first."
    for token in tokens:
        yield token
        yield from walk(token.get("children") or [])


def plain(token: dict) -> str:
    "A token's words without their formatting."
    return token.get("raw") or "".join(plain(child) for child in token.get("children") or [])


def heading_id(text: str) -> str:
    "A heading's anchor, by the rule of pandoc and so of Quarto."
    kept = re.sub(r"[^\w\s.-]", "", HEADING_ATTRIBUTES.sub("", text).lower())
    return re.sub(r"^[^a-z]+", "", "-".join(kept.split())) or "section"


class Html(HTMLParser):
    "What HTML links to and shows, however its attributes are quoted."

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.images, self.drawings = [], [], [], []  # images: source, alt; drawings: tag, alt
        self.figures = []  # of those that are open: the label, and how much was drawn before
        self.feed(text)
        self.close()

    @property
    def drawn(self) -> int:
        "How many images and drawings there were so far."
        return len(self.images) + len(self.drawings)

    def handle_starttag(self, tag, attrs):
        "Keep what a tag tells."
        told = {name: value or "" for name, value in attrs}
        self.ids += [told["id"]] if "id" in told else []
        self.links += [told["href"]] if tag == "a" and told.get("href") else []
        if tag == "img":
            self.images.append((told.get("src", ""), told.get("alt", "")))
        if tag == "svg":
            self.drawings.append(("<svg>", told.get("aria-label", "")))
        if tag == "figure":
            self.figures.append((told.get("aria-label", ""), self.drawn))

    def handle_endtag(self, tag):
        "A figure without an image or SVG in it has to speak for itself."
        if tag == "figure" and self.figures:
            label, before = self.figures.pop()
            self.drawings += [("<figure>", label)] if self.drawn == before else []


@dataclass
class Piece:
    "Markdown or HTML somewhere on a page."
    where: str
    text: str
    html: bool = False

    @cached_property
    def tokens(self) -> list:
        "The piece's Markdown, parsed."
        return [] if self.html else list(walk(parse_markdown(self.text)))

    @cached_property
    def raw_html(self) -> str:
        "All HTML in it."
        return self.text if self.html else "\n".join(plain(t) for t in self.tokens if t["type"].endswith("_html"))

    @cached_property
    def tags(self) -> Html:
        "What its HTML links to and shows."
        return Html(self.raw_html)

    @property
    def links(self) -> list[str]:
        "Where its links lead."
        return [t["attrs"]["url"] for t in self.tokens if t["type"] == "link"] + self.tags.links

    @property
    def images(self) -> list[tuple[str, str]]:
        "Source and alternative text of its images."
        return [(t["attrs"]["url"], plain(t)) for t in self.tokens if t["type"] == "image"] + self.tags.images


@dataclass
class Page:
    "A page, its pieces in their order, and the notebook behind it."
    path: Path
    name: str
    pieces: list[Piece]
    notebook: nbformat.NotebookNode = field(default_factory=lambda: nbformat.v4.new_notebook())

    @cached_property
    def labels(self) -> set[str]:
        "What may be referred to on this page: {#fig-x}, and labels of code cells."
        code = "\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "code")
        marked = "\n".join(FENCED.sub("", piece.text) for piece in self.pieces if not piece.html)
        return {*LABEL.findall(marked), *CELL_LABEL.findall(code)}

    @cached_property
    def anchors(self) -> set[str]:
        "Every anchor of this page."
        ids = [heading_id(plain(t)) for piece in self.pieces for t in piece.tokens if t["type"] == "heading"]
        repeated = {f"{name}-{n}" for name, count in Counter(ids).items() for n in range(1, count)}
        return {*ids, *repeated, *self.labels, *(i for piece in self.pieces for i in piece.tags.ids)}


def pieces_of(notebook: nbformat.NotebookNode) -> list[Piece]:
    "A notebook's Markdown cells, and the Markdown, HTML and SVG that its code cells show."
    pieces = []
    for number, cell in enumerate(notebook.cells):
        where = f"cell {cell.get('id', number)}"
        if cell.cell_type == "markdown":
            pieces.append(Piece(where, cell.source))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if drawn := data.get("text/html") or data.get("image/svg+xml"):
                pieces.append(Piece(f"output of {where}", drawn, html=True))
            elif data.get("text/markdown"):
                pieces.append(Piece(f"output of {where}", data["text/markdown"]))
    return pieces


def read_page(
    path: Path,
    root: Path,  # folder that the page's name starts from
) -> Page:
    "A notebook, or a Markdown file, as a page."
    name = path.relative_to(root).as_posix()
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        return Page(path, name, pieces_of(notebook), notebook)
    return Page(path, name, [Piece("text", path.read_text(encoding="utf-8"))])


@dataclass
class Site:
    "A folder of pages, and the files that they may link to."
    root: Path
    pages: list[Page]

    @cached_property
    def by_path(self) -> dict[Path, Page]:
        "Pages by their file, and by the HTML file that will be made of them."
        made = {page.path.with_name(f"{page_name(page.path)}.html"): page for page in self.pages}
        return made | {page.path: page for page in self.pages}

    def complaint(self, page: Page, link: str) -> str:
        "Why a link of a page leads nowhere; nothing when it leads somewhere."
        target, _, anchor = unquote(link).partition("#")
        found = self.root / target[1:] if target.startswith("/") else page.path.parent / target
        found = Path(found.resolve()) if target else page.path
        if self.root.resolve() not in found.resolve().parents:
            return OUTSIDE
        reached = self.by_path.get(found)
        if not (reached or found.exists()):
            return "leads nowhere"
        if anchor and not (reached and anchor in reached.anchors):
            return f"has no #{anchor} where it leads"
        return ""


def read_site(root: Path, paths: list[Path]) -> Site:
    "A site of these files of a folder."
    return Site(root.resolve(), [read_page(path, root.resolve()) for path in (path.resolve() for path in paths)])


def broken_links(site: Site) -> list[str]:
    "Links and images that lead nowhere."
    lines = []
    for page in site.pages:
        for piece in page.pieces:
            for link in [*piece.links, *(source for source, _ in piece.images)]:
                complaint = "" if EXTERNAL.match(link) else site.complaint(page, link)
                lines += [f"{page.name}: {link} {complaint} ({piece.where})"] if complaint else []
    return lines


def images_without_alt(page: Page) -> list[str]:
    "Images that say nothing to a reader who cannot see them."
    return [
        f"{page.name}: image {source[:60]} has no alt text ({piece.where})"
        for piece in page.pieces for source, alt in [*piece.images, *piece.tags.drawings] if not alt.strip()
    ]


def raster_images(page: Page) -> list[str]:
    "Images of pixels, shown or stored: they neither scale nor follow the page's colours."
    shown = [(source, piece.where) for piece in page.pieces for source, _ in piece.images if RASTER.match(source)]
    stored = [(kind, f"output of cell {cell.get('id')}") for cell in page.notebook.cells for output in cell.get("outputs", [])
              for kind in output.get("data", {}) if kind.startswith("image/") and kind != "image/svg+xml"]
    return [f"{page.name}: {source[:60]} is no SVG ({where})" for source, where in shown + stored]


def undefined_references(page: Page) -> list[str]:
    "References to figures, tables, sections and equations that this page does not define: Quarto resolves no others."
    texts = [(token["raw"], piece.where) for piece in page.pieces for token in piece.tokens if token["type"] == "text"]
    texts += [(option, f"cell {cell.get('id')}") for cell in page.notebook.cells if cell.cell_type == "code"
              for option in CELL_OPTION.findall(cell.source)]  # captions
    return [
        f"{page.name}: @{name} is not defined on this page ({where})"
        for text, where in texts for name in REFERENCE.findall(text) if name not in page.labels
    ]


def div_faults(text: str) -> list[str]:
    "What is wrong with the order of Quarto's ::: lines: one with words opens a block, one without closes it."
    opened, stray = 0, 0
    for words in DIV.findall(text):
        stray += not (words.strip() or opened)
        opened = opened + 1 if words.strip() else max(opened - 1, 0)
    return ["a ::: block is not closed"] * bool(opened) + ["a ::: closes no block"] * bool(stray)


def callout_faults(text: str) -> list[str]:
    "What is wrong with callouts: of a kind that Quarto does not know, not closed, or with Markdown that nothing would render."
    faults = [f"there is no .{kind}" for kind in CALLOUT.findall(text)]
    for inside, end in HTML_CALLOUT.findall(text):
        spaced = inside.startswith("\n\n") and inside.endswith("\n\n")
        faults += ["a callout is not closed"] * (not end) + ["no blank lines inside a callout"] * bool(end and not spaced)
    return faults


def broken_divs(page: Page) -> list[str]:
    "Blocks that are not closed or never opened, and callouts that would not be rendered."
    lines = []
    for piece in page.pieces:
        text = "" if piece.html else FENCED.sub("", piece.text)
        lines += [f"{page.name}: {fault} ({piece.where})" for fault in div_faults(text) + callout_faults(text)]
    return lines


def bad_front_matter(page: Page) -> list[str]:
    "What a processed page lacks in its front matter."
    raw = page.notebook.cells[0] if page.notebook.cells else None
    found = re.fullmatch(r"---\n(.*?)\n---\s*", raw.source, re.DOTALL) if raw and raw.cell_type == "raw" else None
    try:
        fields = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return [f"{page.name}: front matter is not YAML: {' '.join(str(error).split())}"]
    if not isinstance(fields, dict):
        return [f"{page.name}: no front matter in the first cell"]
    lines = [
        f"{page.name}: front matter has no {name}"
        for name in ("title", "description") if not str(fields.get(name) or "").strip()
    ]
    lines += [f"{page.name}: front matter holds {name}, by a line '- {name}: ...' in the first cell" for name in {*fields} - FIELDS]
    made = f"{page_name(page.path)}.html"
    return lines + ([] if fields.get("output-file") == made else [f"{page.name}: its output-file is not {made}"])


def bad_opening(page: Page) -> list[str]:
    "A notebook that does not open with '# Title', then '> subtitle'."
    first = page.notebook.cells[0] if page.notebook.cells else None
    opens = first and first.cell_type == "markdown" and re.match(r"# \S.*\n\n?> \S", first.source)
    return [] if opens else [f"{page.name}: the first cell is not '# Title', then '> subtitle'"]


def bad_outputs(page: Page) -> list[str]:
    "Stored outputs that are too large, failed, need a widget or differ at each run."
    cells = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    lines = ["holds widget metadata: GitHub shows 'Invalid Notebook'"] if "widgets" in page.notebook.metadata else []
    for cell in cells:
        for output in cell.outputs:
            where = f"(cell {cell.get('id')})"
            lines += [f"stored the error {output.ename} {where}"] if output.output_type == "error" else []
            lines += [f"stored a widget {where}" for kind in output.get("data", {}) if "widget" in kind]
            found = re.search(r"/tmp/|at 0x[0-9a-f]{6}", str(output))
            lines += [f"stored {found[0]!r}, which differs at each run {where}"] if found else []
    size = sum(len(str(output).encode()) for cell in cells for output in cell.outputs)
    lines += [f"stored {size} bytes of output, more than {STORED_BYTES}"] if size > STORED_BYTES else []
    return [f"{page.name}: {line}" for line in lines]


def colliding_names(paths: list[Path]) -> list[str]:
    "Notebooks of one folder whose pages overwrite each other: nbdev drops the numbers."
    made: dict[Path, list[str]] = {}
    for path in paths:
        made.setdefault(path.with_name(f"{page_name(path)}.html"), []).append(path.name)
    return [f"{page.as_posix()}: would be made of each of {', '.join(names)}" for page, names in made.items() if names[1:]]


def listed_pages(contents: list) -> list[str]:
    "The pages of a sidebar, in order."
    return [page for entry in contents for page in ([entry] if isinstance(entry, str) else listed_pages(entry["contents"]))]


def misplaced_pages(
    sidebar: dict,  # sidebar.yml
    pages: list[str],  # what has to be in it
) -> list[str]:
    "Pages that the sidebar lacks, repeats or invents."
    counts = Counter(listed_pages(sidebar["website"]["sidebar"]["contents"]))
    wrong = sorted(name for name in {*counts, *pages} if counts[name] != (name in pages))
    return [f"{name}: stands {counts[name]} times in the sidebar" for name in wrong]
