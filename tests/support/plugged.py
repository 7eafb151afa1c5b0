"Plug-ins for one test."
from optima.base.plugins import Source


def plug(monkeypatch, kind, name, thing):
    "Have a kind know a thing until the test ends."
    kind.names()  # what is installed comes first
    monkeypatch.setitem(kind.things, name, thing)
    monkeypatch.setitem(kind.sources, name, Source("a_test", ""))
    return thing
