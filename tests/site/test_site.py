"The site, as far as it can be seen without Quarto: the processed pages, the sidebar, the workflows; and each check's own check."
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from tools.check import unprocessed
from tools.pages import SECTIONS, description, sidebar
from tools.project import ROOT, copy_project, notebooks, project_files
from tools.site_checks import (
    Page,
    bad_front_matter,
    bad_opening,
    bad_outputs,
    broken_divs,
    broken_links,
    colliding_names,
    heading_id,
    images_without_alt,
    listed_pages,
    misplaced_pages,
    pieces_of,
    raster_images,
    read_page,
    read_site,
    undefined_references,
)

NOTEBOOKS = notebooks()
TEXTS = [path for path in project_files() if path.suffix == ".md" and len(path.parts) == 1]
QUARTO = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = {"pip", "pytest", "python", "bash", "git", "apt-get"}
URL = "https://github.com/someone/optima"


def expect_none(lines: list[str]) -> None:
    "Fail with one line per defect."
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.fixture(scope="session")
def processed(tmp_path_factory):
    "A copy of the project after processing, and what processing had to complain of; made once."
    copy = copy_project(tmp_path_factory.mktemp("site") / "copy")
    return copy / "_proc", unprocessed(copy)


@pytest.fixture(scope="session")
def site(processed):
    "The pages, read once."
    return read_site(processed[0], sorted(processed[0].rglob("*.ipynb")))


@pytest.fixture(scope="module")
def sources():
    "The notebooks as they are stored."
    return [read_page(ROOT / path, ROOT) for path in NOTEBOOKS]


# What must hold of our pages

def test_pages_process(processed):
    expect_none(processed[1])


def test_links_and_images_lead_somewhere(site):
    expect_none(broken_links(site))


def test_links_of_texts_lead_somewhere():
    expect_none(broken_links(read_site(ROOT, [ROOT / path for path in TEXTS])))


@pytest.mark.parametrize("check", [images_without_alt, raster_images, undefined_references, broken_divs, bad_front_matter])
def test_processed_pages(site, check):
    expect_none([line for page in site.pages for line in check(page)])


@pytest.mark.parametrize("check", [bad_opening, bad_outputs])
def test_stored_notebooks(sources, check):
    expect_none([line for page in sources for line in check(page)])


def test_no_page_overwrites_another():
    expect_none(colliding_names(NOTEBOOKS))


def test_sidebar_holds_every_page_once_and_in_reading_order():
    written = yaml.safe_load((ROOT / "nbs/sidebar.yml").read_text(encoding="utf-8"))
    pages = [path.relative_to("nbs").as_posix() for path in NOTEBOOKS]
    expect_none(misplaced_pages(written, pages))
    folders = [page.partition("/")[0] for page in listed_pages(written["website"]["sidebar"]["contents"])]
    assert list(dict.fromkeys(folders)) == ["index.ipynb", *SECTIONS.values()]


def test_what_the_configuration_names_is_there(site):
    website = QUARTO["website"]
    assert all((ROOT / "nbs" / name).exists() for name in [website["favicon"], QUARTO["format"]["html"]["css"], "404.qmd"])
    footer = "\n".join(f"[{entry['text']}]({entry['href']})" for entry in website["page-footer"]["left"])
    page = Page(site.root / "_quarto.yml", "_quarto.yml", pieces_of(nbformat.v4.new_notebook(cells=[markdown(footer)])))
    site_with_footer = type(site)(site.root, [*site.pages, page])
    expect_none([line for line in broken_links(site_with_footer) if line.startswith(page.name)])


# Each check fails on a planted defect, and on nothing else

def markdown(text: str):
    "A Markdown cell."
    return nbformat.v4.new_markdown_cell(text)


def shown(text: str, **data):
    "A code cell with an output."
    return nbformat.v4.new_code_cell(text, outputs=[nbformat.v4.new_output("display_data", data)])


def store(path: Path, *cells) -> Path:
    "Write a notebook."
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path


def one_page(folder: Path, *cells):
    "A page of these cells."
    return read_page(store(folder / "10_page.ipynb", *cells), folder)


def links_of(folder: Path, *links: str) -> list[str]:
    "What is wrong with links on a page beside another page, with a picture and a text."
    store(folder / "rewards/20_other.ipynb", markdown("## Why *two* agents?\n\ntext"), markdown("## Why two agents?"))
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images/a b.svg").write_text("<svg/>")
    page = store(folder / "rewards/10_page.ipynb", markdown("\n\n".join(links)), markdown("## Here"))
    return broken_links(read_site(folder, [page, folder / "rewards/20_other.ipynb"]))


def test_links_that_lead_somewhere(tmp_path):
    assert links_of(
        tmp_path, "[a](20_other.ipynb) [b](20_other.ipynb#why-two-agents) [c](20_other.ipynb#why-two-agents-1)",
        "[d](/rewards/other.html) ![e](../images/a%20b.svg) [f](https://nowhere.example) [g](#here)",
        "`[code](not-a-link.ipynb)`", "```\n[code](not-a-link.ipynb)\n```", "| t |\n|---|\n| [h](10_page.ipynb) |",
    ) == []


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[a](21_other.ipynb)", "21_other.ipynb leads nowhere"),
        ("[a](othe.html)", "othe.html leads nowhere"),
        ("[a](20_other.ipynb#why-three)", "20_other.ipynb#why-three has no #why-three where it leads"),
        ("[a](#there)", "#there has no #there where it leads"),
        ("[a](../../secret.md)", "../../secret.md leads out of the site"),
        ("![a](../images/none.svg)", "../images/none.svg leads nowhere"),
        ("| t |\n|---|\n| [a](none.ipynb) |", "none.ipynb leads nowhere"),
        ("<details><summary>S</summary>\n\n[a](none.ipynb)\n\n</details>", "none.ipynb leads nowhere"),
        ("<a class='x' href='none.ipynb'>a</a>", "none.ipynb leads nowhere"),
        ("<img alt='a' src='none.svg'>", "none.svg leads nowhere"),
        ("<a class=x href=none.ipynb>a</a>", "none.ipynb leads nowhere"),
        ("<img alt=a src=none.svg>", "none.svg leads nowhere"),
        ("[a][b]\n\n[b]: none.ipynb", "none.ipynb leads nowhere"),
    ],
)
def test_planted_link(tmp_path, link, complaint):
    (line,) = links_of(tmp_path, link)
    assert re.fullmatch(rf"rewards/10_page\.ipynb: {re.escape(complaint)} \(cell \w+\)", line)


@pytest.mark.parametrize("kind", ["text/markdown", "text/html"])
def test_planted_link_in_an_output(tmp_path, kind):
    text = {"text/markdown": "[a](none.ipynb)", "text/html": '<a href="none.ipynb">a</a>'}[kind]
    page = store(tmp_path / "page.ipynb", shown("links", **{kind: text}))
    (line,) = broken_links(read_site(tmp_path, [page]))
    assert "none.ipynb leads nowhere (output of cell " in line


@pytest.mark.parametrize(
    ("heading", "made"),
    [
        ("Why *two* agents?", "why-two-agents"), ("`Trajectory.from_json`", "trajectory.from_json"),
        ("2. The loop", "the-loop"), ("A, b - c", "a-b---c"), ("42", "section"), ("Named {#sec-x .y}", "named"),
    ],
)
def test_heading_ids_are_pandocs(heading, made):
    assert heading_id(heading.replace("*", "").replace("`", "")) == made


GOOD = [
    markdown("![A curve that falls](a.svg){#fig-a}\n\n@fig-a, `@fig-b`, someone@tbl-x.org\n\n::: {.callout-note}\nx\n:::"),
    nbformat.v4.new_code_cell("#| label: tbl-b\n#| tbl-cap: what @fig-a draws\ntable('@fig-z')"),
    markdown("<figure><img src='a.svg' alt='A curve'></figure> <svg aria-label='A dot'></svg>\n\n:::: {.x}\n::: y\n:::\n::::"),
    markdown('<div class="callout-note">\n\n> x\n\n</div>'),
    markdown("@tbl-b and @eq-c, @sec-d\n\n$$x$$ {#eq-c}\n\n## D {#sec-d}\n\n```\n@fig-z\n:::\n```"),
]


@pytest.mark.parametrize("check", [images_without_alt, raster_images, undefined_references, broken_divs])
def test_checks_pass_what_is_right(tmp_path, check):
    assert check(one_page(tmp_path, *GOOD)) == []


@pytest.mark.parametrize(
    ("check", "text", "complaint"),
    [
        (images_without_alt, "![](a.svg)", "image a.svg has no alt text"),
        (images_without_alt, "<img src='a.svg'>", "image a.svg has no alt text"),
        (images_without_alt, "<figure><img src=a.svg alt=''></figure>", "image a.svg has no alt text"),
        (images_without_alt, "<figure aria-label=''><b>12</b></figure>", "image <figure> has no alt text"),
        (images_without_alt, "<figure><svg role='img'><path/></svg></figure>", "image <svg> has no alt text"),
        (raster_images, "![A curve](a.PNG)", "a.PNG is no SVG"),
        (raster_images, "<img alt='A dot' src='data:image/png;base64,AA'>", "data:image/png;base64,AA is no SVG"),
        (undefined_references, "see @fig-far", "@fig-far is not defined on this page"),
        (undefined_references, "see [@tbl-far]", "@tbl-far is not defined on this page"),
        (undefined_references, "*@eq-far* and {#eq-near}", "@eq-far is not defined on this page"),
        (broken_divs, "::: {.callout-tip}\nx", "a ::: block is not closed"),
        (broken_divs, "x\n:::\n\n::: {.callout-tip}\nx\n:::", "a ::: closes no block"),
        (broken_divs, "::: {.callout-hint}\nx\n:::", "there is no .callout-hint"),
        (broken_divs, '<div class="callout-hint">\n\nx\n\n</div>', "there is no .callout-hint"),
        (broken_divs, '<div class="callout-tip">\n\nx', "a callout is not closed"),
        (broken_divs, '<div class="callout-tip">\nx\n\n</div>', "no blank lines inside a callout"),
        (broken_divs, '<div class="callout-tip">\n\nx\n</div>', "no blank lines inside a callout"),
    ],
)
def test_planted_defect_in_a_text(tmp_path, check, text, complaint):
    (line,) = check(one_page(tmp_path, *GOOD, markdown(text)))
    assert re.fullmatch(rf"10_page\.ipynb: {re.escape(complaint)} \(cell \w+\)", line)


def test_planted_reference_in_a_caption(tmp_path):
    code = nbformat.v4.new_code_cell("#| label: fig-near\n#| fig-cap: |\n#|   beside @fig-far\ndraw()")
    (line,) = undefined_references(one_page(tmp_path, *GOOD, code))
    assert line == f"10_page.ipynb: @fig-far is not defined on this page (cell {code.id})"


@pytest.mark.parametrize(("check", "data", "complaint"), [
    (raster_images, {"image/png": "AA"}, "image/png is no SVG"),
    (images_without_alt, {"image/svg+xml": "<svg><path/></svg>"}, "image <svg> has no alt text"),
    (images_without_alt, {"text/html": "<figure><svg></svg></figure>"}, "image <svg> has no alt text"),
])
def test_planted_image_in_an_output(tmp_path, check, data, complaint):
    assert check(one_page(tmp_path, shown("a dot", **{"image/svg+xml": "<svg aria-label='A dot'></svg>"}))) == []
    (line,) = check(one_page(tmp_path, shown("a dot", **data)))
    assert line.startswith(f"10_page.ipynb: {complaint} (output of cell ")


def test_front_matter(tmp_path):
    good = "---\ntitle: T\ndescription: D\noutput-file: page.html\n\n---\n\n"

    def lines(source):
        return bad_front_matter(one_page(tmp_path, nbformat.v4.new_raw_cell(source)))

    assert lines(good) == []
    assert lines(good.replace("description: D\n", "")) == ["10_page.ipynb: front matter has no description"]
    assert lines(good.replace("T\n", "''\n")) == ["10_page.ipynb: front matter has no title"]
    assert lines(good.replace("page.html", "other.html")) == ["10_page.ipynb: its output-file is not page.html"]
    assert lines(good.replace("T\n", "a: b: c\n"))[0].startswith("10_page.ipynb: front matter is not YAML: ")
    assert "front matter holds few tasks, by a line" in lines(good.replace("title", "few tasks: x\ntitle"))[0]
    assert lines("text") == ["10_page.ipynb: no front matter in the first cell"]


@pytest.mark.parametrize("text", ["T", "# T", "# T\n\ntext", "## T\n\n> S", "---\ntitle: T\n---\n# T\n\n> S"])
def test_planted_opening(tmp_path, text):
    assert bad_opening(one_page(tmp_path, markdown("# T\n\n> S\n\ntext"))) == []
    assert bad_opening(one_page(tmp_path, markdown(text))) == ["10_page.ipynb: the first cell is not '# Title', then '> subtitle'"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"text/plain": "x" * 200_001}, "bytes of output, more than 200000"),
        ({"text/plain": "é" * 199_000}, "bytes of output, more than 200000"),
        ({"application/vnd.jupyter.widget-view+json": {}}, "stored a widget (cell "),
        ({"text/plain": "<object at 0x7f00aabbcc>"}, "stored 'at 0x7f00aa', which differs at each run (cell "),
        ({"text/html": "/tmp/run"}, "stored '/tmp/', which differs at each run (cell "),
    ],
)
def test_planted_output(tmp_path, data, complaint):
    assert bad_outputs(one_page(tmp_path, shown("x", **{"text/plain": "x" * 199_000}))) == []
    (line,) = bad_outputs(one_page(tmp_path, shown("x", **data)))
    assert line.startswith("10_page.ipynb: ") and complaint in line


def test_planted_error_and_widget_metadata(tmp_path):
    page = one_page(tmp_path, nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("error", ename="KeyError")]))
    page.notebook.metadata["widgets"] = {}
    widgets, error = bad_outputs(page)
    assert "widget metadata" in widgets and "stored the error KeyError (cell " in error


def test_planted_collision():
    paths = [Path("nbs/engines/02_cache.ipynb"), Path("nbs/engines/3a_cache.ipynb"), Path("nbs/explain/cache.ipynb")]
    assert colliding_names(paths) == ["nbs/engines/cache.html: would be made of each of 02_cache.ipynb, 3a_cache.ipynb"]


def test_planted_sidebar():
    written = {"website": {"sidebar": {"contents": ["a", {"section": "S", "contents": ["b", "b", "x"]}]}}}
    assert misplaced_pages(written, ["a", "b", "c"]) == [
        "b: stands 2 times in the sidebar", "c: stands 0 times in the sidebar", "x: stands 1 times in the sidebar",
    ]


# What tools/pages.py makes

def test_sidebar_follows_the_reading_order(tmp_path):
    for name in ("rewards/10_b", "rewards/05_z", "tutorials/extra", "tutorials/train_a_team", "tutorials/first_dialogue"):
        store(tmp_path / f"{name}.ipynb")
    assert listed_pages(sidebar(tmp_path)["website"]["sidebar"]["contents"]) == [
        "index.ipynb", "tutorials/first_dialogue.ipynb", "tutorials/train_a_team.ipynb", "tutorials/extra.ipynb",
        "rewards/05_z.ipynb", "rewards/10_b.ipynb",
    ]


def test_description_holds_known_addresses_only():
    written = {"website": {"title": "T", "site-url": "/", "repo-branch": "main", "repo-url": ""}}
    assert description(written) == {"website": {"title": "T"}}
    written["website"] |= {"site-url": "https://x.org/o", "repo-url": URL}
    assert description(written)["website"] == written["website"] | {
        "repo-subdir": "nbs", "repo-actions": ["edit", "source", "issue"],
    }


def small_project(folder: Path, urls: str) -> Path:
    "Our settings and tools around two pages and a module; the processed pages' folder."
    for name in ("pyproject.toml", "_quarto.yml", "tools/pages.py", "tools/site_checks.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    settings = (folder / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(settings.replace("[project.urls]\n", f"[project.urls]\n{urls}"), encoding="utf-8")
    (folder / "nbs").mkdir()
    (folder / "nbs/_quarto.yml").symlink_to("../_quarto.yml")
    (folder / "optima").mkdir()
    (folder / "optima/__init__.py").write_text('__version__ = "0"\n')
    (folder / "LICENSE").write_text("L")
    text = "`add_up` and `add`; [the license](../LICENSE)"
    store(folder / "nbs/index.ipynb", markdown(f"# First\n\n> Sub\n\nThe introduction. {text}"), markdown("# More"))
    store(
        folder / "nbs/rewards/10_sums.ipynb", markdown("# Sums\n\n> Sub"), nbformat.v4.new_code_cell("#| default_exp sums"),
        nbformat.v4.new_code_cell('#| export\ndef add_up(*terms):\n    "Their sum."\n    return sum(terms)'),
        nbformat.v4.new_code_cell('#| export\ndef add(a, b):\n    "Their sum."\n    return a + b'),
    )
    program = "from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__(); from tools.pages import main; main()"
    environment = os.environ | {"PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "_proc"


def test_links_into_the_repository_only_where_it_is_known(tmp_path):
    made = small_project(tmp_path / "none", "")
    texts = {path.name: path.read_text(encoding="utf-8") for path in made.rglob("*.ipynb")}
    assert "The introduction. [`add_up`](rewards/10_sums.ipynb#add_up) and `add`; the license" in texts["index.ipynb"]
    assert not re.search(r"colab|blob/|source\]|github\.com", "".join(texts.values()))
    assert "repo-" not in (made / "nbdev.yml").read_text() and "Paper" not in (made / "nbdev.yml").read_text()


def test_links_into_a_planted_repository(tmp_path):
    made = small_project(tmp_path / "known", f'Repository = "{URL}"\nDocumentation = "https://someone.github.io/optima/"\n')
    texts = {path.name: path.read_text(encoding="utf-8") for path in made.rglob("*.ipynb")}
    assert "[`add_up`](rewards/10_sums.ipynb#add_up) and `add`;" in texts["index.ipynb"]
    assert f"[the license]({URL}/blob/main/LICENSE)" in texts["index.ipynb"]
    assert f"[source]({URL}/blob/main/optima/sums.py#L" in texts["10_sums.ipynb"]
    for name, page in (("index.ipynb", "index.ipynb"), ("10_sums.ipynb", "rewards/10_sums.ipynb")):
        assert texts[name].count(f"https://colab.research.google.com/github/someone/optima/blob/main/nbs/{page}") == 1
    website = yaml.safe_load((made / "nbdev.yml").read_text())["website"]
    assert website["repo-url"] == URL and website["repo-subdir"] == "nbs" and "edit" in website["repo-actions"]
    assert website["site-url"] == "https://someone.github.io/optima"


# Workflows

def workflow_problems(name: str, text: str) -> list[str]:
    "What cannot work in a workflow, or asks for more than it needs."
    content = yaml.safe_load(text)
    triggers, lines = content[True], []  # YAML reads the key `on` as true
    least = {"contents": "read"}
    lines += ["has no trigger"] if not triggers else []
    lines += ["takes more permissions than reading"] if content.get("permissions") != least else []
    lines += ["has no concurrency group"] if "group" not in content.get("concurrency", {}) else []
    for job, settings in content["jobs"].items():
        lines += [f"{job} has no time-out"] if "timeout-minutes" not in settings else []
        lowest = re.escape(PROJECT["requires-python"].removeprefix(">="))
        image = settings.get("container", {}).get("image")
        lines += [f"{job} runs in {image}"] if image and not re.fullmatch(rf"python:{lowest}-\w+", image) else []
        for step in settings["steps"]:
            lines += step_problems(job, step, content.get("env", {}), lowest)
    return [f"{name}: {line}" for line in lines]


def step_problems(job: str, step: dict, names: dict, lowest: str) -> list[str]:
    "What is wrong with a step."
    lines, options = [], step.get("with", {})
    action, _, version = step.get("uses", "").partition("@")
    lines += [f"{job} does not pin {action}"] if action and not re.fullmatch(r"v\d+|[0-9a-f]{40}", version) else []
    if action == "actions/setup-python" and not re.fullmatch(lowest, options.get("python-version", "")):
        lines.append(f"{job} takes another Python than requires-python starts at")
    if action == "quarto-dev/quarto-actions/setup":
        version = re.sub(r"\$\{\{ env\.(\w+) \}\}", lambda found: str(names.get(found[1])), str(options.get("version")))
        lines += [f"{job} does not pin Quarto"] if not re.fullmatch(r"\d+\.\d+\.\d+", version) else []
    for command in step.get("run", "").splitlines():
        words = re.sub(r"^(\w+=\S+ )+", "", command).split()
        files = [word for word in words if re.fullmatch(r"(tools|tests|\.ci)/[\w./]+", word)]
        lines += [f"{job} runs {words[0]}, which is not there"] if words[0] not in COMMANDS else []
        lines += [f"{job} names {file}, which is not there" for file in files if not (ROOT / file).exists()]
    return lines


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow(name):
    expect_none(workflow_problems(name, WORKFLOWS[name].read_text(encoding="utf-8")))


def test_workflows_cover_tests_site_and_newest_versions():
    texts = {name: path.read_text(encoding="utf-8") for name, path in WORKFLOWS.items()}
    assert set(texts) == {"tests", "site", "newest"}
    triggers = {name: yaml.safe_load(text)[True] for name, text in texts.items()}
    assert "push" in triggers["tests"] and "bash .ci/run" in texts["tests"]
    assert triggers["site"]["push"] == {"branches": ["main"]} and "python tools/pages.py --render" in texts["site"]
    assert re.fullmatch(r"\d+ \d+ \* \* \d", triggers["newest"]["schedule"][0]["cron"])
    (upgrade,) = re.findall(r"^ *pip install --upgrade (.*)$", texts["newest"], re.MULTILINE)
    assert upgrade.split() == ["trl", "transformers", "peft", "bitsandbytes"]


@pytest.mark.parametrize(
    ("name", "right", "wrong", "complaint"),
    [
        ("tests", "contents: read", "contents: write", "takes more permissions than reading"),
        ("tests", "timeout-minutes: 60", "name: x", "tests has no time-out"),
        ("tests", "checkout@v6", "checkout@main", "tests does not pin actions/checkout"),
        ("tests", ".ci/run", ".ci/walk", "tests names .ci/walk, which is not there"),
        ("tests", "python:3.11", "python:3.10", "tests runs in python:3.10-bookworm"),
        ("site", '"3.11"', '"3.14"', "build takes another Python than requires-python starts at"),
        ("site", "1.10.19", "latest", "build does not pin Quarto"),
        ("site", "python tools", "quarto tools", "build runs quarto, which is not there"),
        ("site", "group: site", "other: site", "has no concurrency group"),
    ],
)
def test_planted_workflow(name, right, wrong, complaint):
    text = WORKFLOWS[name].read_text(encoding="utf-8")
    assert right in text
    assert f"{name}: {complaint}" in workflow_problems(name, text.replace(right, wrong))
