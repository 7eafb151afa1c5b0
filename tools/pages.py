"""Processes the notebooks into _proc/, ready for Quarto, which this does not need: `python tools/pages.py`.

With `--render`, Quarto then makes the site in _docs/.
"""
import gc
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import yaml
from nbdev.config import ConfigToml, get_config
from nbdev.doclinks import NbdevLookup, _build_modidx
from nbdev.quarto import _fix_quarto_nav, refresh_quarto_yml
from nbdev.quarto_render import render_quarto
from nbdev.serve import proc_nbs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.site_checks import OUTSIDE, Page, Site, read_site

SECTIONS = {  # folders of nbs/ in reading order, by their title in the sidebar
    "Tutorials": "tutorials",
    "Tasks": "tasks", "Agents": "agents", "Rewards": "rewards", "Training": "train", "The loop": "run",  # the course
    "Evaluation": "evaluate", "Tables and figures": "report", "Results": "results",
    "Engines": "engines", "The toy world": "toy", "The sandbox": "sandbox",  # the machinery behind it
    "Explanations": "explain", "Reproduce": "reproduce",
}
FIRST = {  # what a folder's file names do not say: which pages are read first, and in which order
    "tutorials": [
        "first_dialogue", "train_a_team", "your_own_reward", "your_own_task", "your_own_paradigm", "consumer_gpu",
        "teacher_api",
    ],
    "results": [
        "toy_main_results", "toy_token_cost", "toy_reward_ablation", "toy_iterations", "toy_reward_weights",
        "toy_paper_main",
    ],
    "explain": ["paper_map", "article_and_paper", "deviations", "what_the_toy_world_shows", "hardware"],
    "reproduce": ["experiment", "main_results", "token_cost", "reward_ablation", "iterations", "reward_weights"],
}
SYMBOL_LINK = re.compile(r"\[(`[^`]+`)\]\(([^)\s]*\.html#[^)\s]*)\)")
PLAIN_WORD = re.compile(r"`[a-z]+`")
UPWARD_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)\s]+)\)")
SOURCE_LINK = re.compile(r"<a [^>]*>source</a>|\[source\]\([^)]*\)(\{[^}]*\})?\n*")
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def in_reading_order(folder: Path) -> list[Path]:
    "A folder's notebooks: first the ones with a place of their own, then the others by name."
    first = FIRST.get(folder.name, [])
    place = {name: number for number, name in enumerate(first)}
    return sorted(folder.glob("*.ipynb"), key=lambda path: (place.get(path.stem, len(first)), path.name))


def sidebar(
    nbs: Path,  # folder of the notebooks
) -> dict:
    "Quarto's sidebar: the first page, then each folder's pages in reading order."
    contents: list = ["index.ipynb"]
    for title, name in SECTIONS.items():
        pages = [path.relative_to(nbs).as_posix() for path in in_reading_order(nbs / name)]
        contents += [{"section": title, "contents": pages}] if pages else []
    return {"website": {"sidebar": {"contents": contents}}}


def description(
    written: dict,  # nbdev.yml as nbdev writes it
) -> dict:
    "The site's description without addresses that nobody set, and with links into the repository where it is known."
    website = dict(written["website"])
    if not website["repo-url"]:
        del website["repo-url"], website["repo-branch"]
    else:
        website |= {"repo-subdir": "nbs", "repo-actions": ["edit", "source", "issue"]}
    if website["site-url"] == "/":
        del website["site-url"]
    return written | {"website": website}


def write_yaml(path: Path, content: dict) -> None:
    "Write, unless it is there already."
    text = yaml.safe_dump(content, sort_keys=False, width=1000)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def colab_badge(
    config: ConfigToml,  # nbdev's settings
    page: str,  # path in nbs/
) -> str:
    "A badge that opens the page's notebook in Colab, as Markdown; nothing where the repository is not on GitHub."
    repository = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(\.git)?", config.git_url)
    if not repository:
        return ""
    notebook = f"https://colab.research.google.com/github/{repository[1]}/blob/{config.branch}/nbs/{page}"
    return f"[![Open in Colab]({BADGE})]({notebook})"


def mend(
    text: str,  # Markdown of a page
    page: Page,
    site: Site,
    config: ConfigToml,  # nbdev's settings
) -> str:
    """Markdown without links that lead nowhere on the site.

    nbdev links `name` to where the package documents it. It does so for words such as `train`, which on most pages are
    not the function of that name, and for names that have no heading of their own; and its links to source code need a
    repository, as do links to files outside nbs/.
    """
    base = f"{config.doc_host}{config.doc_baseurl}".rstrip("/")

    def symbol(found: re.Match) -> str:
        name, target = found.groups()
        target = target.removeprefix(base)
        if PLAIN_WORD.fullmatch(name) or not target.startswith("/") or site.complaint(page, target):
            return name
        made, _, anchor = target.partition("#")
        notebook = os.path.relpath(site.by_path[site.root / made[1:]].path, page.path.parent)
        return f"[{name}]({notebook}#{anchor})"

    def outside(found: re.Match) -> str:
        if site.complaint(page, found[2]) != OUTSIDE:
            return found[0]
        path = (page.path.parent / found[2]).resolve().relative_to(site.root.parent).as_posix()
        return f"[{found[1]}]({config.git_url}/blob/{config.branch}/{path})" if config.git_url else found[1]

    text = UPWARD_LINK.sub(outside, SYMBOL_LINK.sub(symbol, text))
    return text if config.git_url else SOURCE_LINK.sub("", text)


def introduction(notebook: Path) -> str:
    "What follows title and subtitle in a notebook's first cell: nbdev keeps these two only, as front matter."
    first = nbformat.read(notebook, as_version=4).cells[0].source
    return re.sub(r"\A# .*\n+> .*\n*", "", first).strip()


def finish_page(page: Page, site: Site, config: ConfigToml) -> None:
    "Mend a processed page's links, drop outputs that nbdev emptied; put badge and introduction back on top."
    cells = page.notebook.cells
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = mend(cell.source, page, site, config)
        if cell.cell_type == "code":
            cell.outputs = [made for made in cell.outputs if made.get("data", {}).get("text/markdown", "") is not None]
        if "\nshow_doc(" in cell.source:
            for output in cell.outputs:
                documented = output.data["text/markdown"].replace("__main__.", "")  # where nbdev ran the chapter's cells
                output.data["text/markdown"] = mend(documented, page, site, config)
    opening = mend(NbdevLookup().linkify(introduction(config.nbs_path / page.name)) or "", page, site, config)
    top = [text for text in (colab_badge(config, page.name), opening) if text]
    if [cell.source for cell in cells[1 : 1 + len(top)]] != top:
        cells[1:1] = [nbformat.v4.new_markdown_cell(text) for text in top]
    nbformat.write(page.notebook, page.path)


def make_pages() -> Path:
    "What nbdev-proc-nbs does, without its attempt to install Quarto; then what nbdev has no setting for."
    config = get_config()
    refresh_quarto_yml()
    settings = config.nbs_path / "nbdev.yml"
    write_yaml(settings, description(yaml.safe_load(settings.read_text(encoding="utf-8"))))
    write_yaml(config.nbs_path / "sidebar.yml", sidebar(config.nbs_path))
    _build_modidx()
    made = proc_nbs(config.nbs_path, n_workers=0)  # in this process, see `main`
    site = read_site(made, sorted(made.rglob("*.ipynb")))
    for page in site.pages:
        finish_page(page, site, config)
    return made


def main() -> None:
    "Make the pages, and with --render the site."
    root = Path(__file__).resolve().parents[1]
    os.chdir(root)
    made = make_pages()
    gc.freeze()  # as this process ends, IPython collects garbage once for every page: a minute, where all is looked through
    if "--render" not in sys.argv[1:]:
        print(made)
        return
    if not shutil.which("quarto"):
        sys.exit("--render needs Quarto, which is not on the PATH: https://quarto.org/docs/get-started/")
    render_quarto(made, root / "_docs", n_workers=1)
    _fix_quarto_nav(root / "_docs")
    print(root / "_docs")


if __name__ == "__main__":
    main()
