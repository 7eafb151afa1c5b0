"""What must hold of every page of the site, found without Quarto: each check returns a line per defect.

Pages are what tools/pages.py leaves in _proc/; README and its like are checked as pages of the project's folder.
"""
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import mistune
import nbformat
import yaml

STORED_CHARACTERS = 200_000
OUTSIDE = "leads out of the site"
FIELDS = {"title", "description", "output-file"}
NUMBER = re.compile(r"^\d+[a-z0-9]*_")
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
REFERENCE = re.compile(r"(?<![\w/.])@((?:fig|tbl|sec|eq)-[\w-]+)")
LABEL = re.compile(r"\{#([\w.:-]+)")
CELL_LABEL = re.compile(r"^#\| *label: *([\w.:-]+)", re.MULTILINE)
HEADING_ATTRIBUTES = re.compile(r"\s*\{[^}]*\}\s*$")
HTML_ID = re.compile(r"\bid=[\"']([^\"']+)")
HTML_LINK = re.compile(r"<a\s[^>]*?href=[\"']([^\"']+)", re.IGNORECASE)
HTML_IMAGE = re.compile(r"<img\s[^>]*>", re.IGNORECASE)
ATTRIBUTE = re.compile(r"(src|alt)=[\"']([^\"']*)")
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

    @property
    def links(self) -> list[str]:
        "Where its links lead."
        return [t["attrs"]["url"] for t in self.tokens if t["type"] == "link"] + HTML_LINK.findall(self.raw_html)

    @property
    def images(self) -> list[tuple[str, str]]:
        "Source and alternative text of its images."
        tags = [dict(ATTRIBUTE.findall(tag)) for tag in HTML_IMAGE.findall(self.raw_html)]
        marked = [(t["attrs"]["url"], plain(t)) for t in self.tokens if t["type"] == "image"]
        return marked + [(tag.get("src", ""), tag.get("alt", "")) for tag in tags]


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
        return {*ids, *repeated, *self.labels, *(i for piece in self.pieces for i in HTML_ID.findall(piece.raw_html))}


def pieces_of(notebook: nbformat.NotebookNode) -> list[Piece]:
    "A notebook's Markdown cells, and the Markdown and HTML that its code cells show."
    pieces = []
    for number, cell in enumerate(notebook.cells):
        where = f"cell {cell.get('id', number)}"
        if cell.cell_type == "markdown":
            pieces.append(Piece(where, cell.source))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.get("text/html"):
                pieces.append(Piece(f"output of {where}", data["text/html"], html=True))
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
        for piece in page.pieces for source, alt in piece.images if not alt.strip()
    ]


def undefined_references(page: Page) -> list[str]:
    "References to figures, tables, sections and equations that this page does not define: Quarto resolves no others."
    return [
        f"{page.name}: @{name} is not defined on this page ({piece.where})"
        for piece in page.pieces for token in piece.tokens if token["type"] == "text"
        for name in REFERENCE.findall(token["raw"]) if name not in page.labels
    ]


def broken_divs(page: Page) -> list[str]:
    "Blocks that are not closed, and callouts of a kind that Quarto does not know, or whose Markdown nothing would render."
    lines = []
    for piece in page.pieces:
        text = "" if piece.html else FENCED.sub("", piece.text)
        ends = [not words.strip() for words in DIV.findall(text)]
        lines += [f"{page.name}: a ::: block is not closed ({piece.where})"] if ends.count(True) * 2 != len(ends) else []
        for inside, end in HTML_CALLOUT.findall(text):
            spaced = inside.startswith("\n\n") and inside.endswith("\n\n")
            lines += [] if end else [f"{page.name}: a callout is not closed ({piece.where})"]
            lines += [f"{page.name}: no blank lines inside a callout ({piece.where})"] if end and not spaced else []
        lines += [f"{page.name}: there is no .{kind} ({piece.where})" for kind in CALLOUT.findall(text)]
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
    size = sum(len(str(output)) for cell in cells for output in cell.outputs)
    lines += [f"stored {size} characters of output, more than {STORED_CHARACTERS}"] if size > STORED_CHARACTERS else []
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
