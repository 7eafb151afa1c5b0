"""The structure in figures: `python tools/structure.py [CHECKOUT]`: packages, layers, circles, upward and late imports.

For the values of `FOLLOWED` it lists the files whose code names them, from the command line to where they act.
"""
import ast
import sys
import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
FOLLOWED = {"preset": ("preset",), "seed": ("seed",), "a reward weight": ("weights", "efficiency_weight", "RewardWeights")}


def layers(checkout: Path) -> list[str]:
    "The rooms from the lowest to the highest, as the contract in pyproject.toml has them; none in an older checkout."
    linter = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["tool"].get("importlinter", {})
    listed = [contract["layers"] for contract in linter.get("contracts", []) if contract["type"] == "layers"]
    return [name for name in reversed(listed[0])] if listed else []


def room(module: str) -> str:
    "The package, or the module at the top, that a module belongs to."
    return module.split(".")[1] if "." in module else ""


def edges(graph) -> list[tuple[str, str]]:
    "Every import of one of our modules by another, as (importer, imported)."
    found = [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]
    return sorted(edge for edge in found if "._modidx" not in edge[0] and "." in edge[0] and "." in edge[1])


def circles(names: set[str], joined: list[tuple[str, str]]) -> list[set[str]]:
    "Groups of names that import each other, over however many steps."
    reached = {name: {name} for name in names}
    changed = True
    while changed:
        sizes = sum(map(len, reached.values()))
        for importer, imported in joined:
            reached[importer] |= reached[imported]
        changed = sum(map(len, reached.values())) > sizes
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in names}
    return sorted((set(group) for group in groups if len(group) > 1), key=min)


def depth(names: set[str], joined: list[tuple[str, str]]) -> int:
    "How many modules stand above each other on the longest way down; each circle counts once."
    knots = circles(names, joined)
    of = {name: min(next((group for group in knots if name in group), {name})) for name in names}
    below: dict[str, set[str]] = {of[name]: set() for name in names}
    for importer, imported in joined:
        if of[importer] != of[imported]:
            below[of[importer]].add(of[imported])
    known: dict[str, int] = {}

    def measure(name: str) -> int:
        if name not in known:
            known[name] = 1 + max((measure(other) for other in below[name]), default=0)
        return known[name]

    return max(map(measure, below))


def late_imports(package: Path) -> list[tuple[str, str]]:
    "Imports of our own modules that stand inside a function: (file, module)."
    found = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            name = getattr(node, "module", "") or ""
            if isinstance(node, ast.ImportFrom) and id(node) not in top and (node.level or name.split(".")[0] == package.name):
                found.append((path.relative_to(package).as_posix(), name))
    return found


def naming(package: Path, words: tuple[str, ...]) -> list[str]:
    "The files whose code names a value: as a parameter, an attribute, a variable or a key."
    def named(node) -> set[str]:
        return {getattr(node, field, None) for field in ("arg", "attr", "id", "name", "value")
                if isinstance(getattr(node, field, None), str)}

    files = (path for path in sorted(package.rglob("*.py")) if path.name != "_modidx.py")
    return [path.relative_to(package).as_posix() for path in files
            if any(named(node) & {*words} for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))]


def report(checkout: Path) -> list[str]:
    "What there is to say, a line each."
    package = checkout / "optima"
    graph = grimp.build_graph("optima", cache_dir=None)
    modules = {name for name in graph.modules if "." in name and not name.endswith("_modidx")}
    modules -= {name for name in modules if (package / Path(*name.split(".")[1:])).is_dir()}  # packages
    joined = [edge for edge in edges(graph) if {*edge} <= modules]
    order = layers(checkout)
    upward = [f"{importer} -> {imported}" for importer, imported in joined if order and room(importer) in order and room(imported) in order
              and order.index(room(imported)) > order.index(room(importer))]
    rooms = Counter(room(name) for name in modules if name.count(".") > 1)
    sizes = {name: len((package / Path(*name.split(".")[1:])).with_suffix(".py").read_text(encoding="utf-8").splitlines()) for name in modules}
    knots, late = circles(modules, joined), late_imports(package)
    return [
        f"modules: {len(modules)} in {len(rooms) or 1} packages ({', '.join(f'{name} {count}' for name, count in sorted(rooms.items())) or 'one folder'})",
        f"layers: {len(order) or 'no contract'}; modules above each other, at most: {depth(modules, joined)}",
        f"circles: {len(knots)}{''.join(f'; {len(group)} modules: {chr(44).join(sorted(group))}' for group in knots)}",
        f"upward imports: {len(upward) if order else 'no contract'}{''.join(f'; {line}' for line in upward)}",
        f"imports between our modules: {len(joined)}; late ones: {len(late)}",
        f"lines per module: median {sorted(sizes.values())[len(sizes) // 2]}, most {max(sizes.values())} ({max(sizes, key=sizes.get)})",
        *(f"files that name {what}: {len(found)} in {len({Path(name).parts[0] for name in found})} rooms: {', '.join(found)}"
          for what, words in FOLLOWED.items() for found in [naming(package, words)]),
    ]


def main() -> int:
    "Report on the named checkout, or on this one."
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT).resolve()
    sys.path.insert(0, str(checkout))
    if Path(find_spec("optima").origin).parent.parent != checkout:
        sys.exit(f"optima is imported from {find_spec('optima').origin} and not from {checkout}; set PYTHONPATH={checkout}")
    print(*report(checkout), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
