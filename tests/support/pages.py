"Runs a page's cells in the tests' own process."
import ast

import nbformat


def in_process(path, monkeypatch, replaced=None) -> str:
    "What a notebook shows, its cells run in this process; `replaced` maps a cell's text to another."
    seen, names = [], {}
    monkeypatch.setattr("IPython.display.display", lambda *things: seen.extend(things))
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            *body, last = ast.parse((replaced or {}).get(cell.source, cell.source)).body
            final = isinstance(last, ast.Expr)
            exec(compile(ast.Module(body if final else [*body, last], []), str(path), "exec"), names)  # noqa: S102 - our own notebook
            seen.append(eval(compile(ast.Expression(last.value), str(path), "eval"), names) if final else None)
    return "\n".join(shown_text(thing) for thing in seen if thing is not None)


def shown_text(thing) -> str:
    "A displayed thing as a page has it."
    return thing._repr_html_() if hasattr(thing, "_repr_html_") else getattr(thing, "data", None) or str(thing)
