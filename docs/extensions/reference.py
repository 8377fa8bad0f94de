"""The pages of the API reference: every public name, in the order and the groups of the modules that define them."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from docs.extensions.docstrings import equations, escape, is_formula

MODULES = [  # a name that several modules have is described in the last of them
    "xpnet",
    "xpnet.layers",
    "xpnet.losses",
    "xpnet.metrics",
    "xpnet.optimizers",
    "xpnet.schedules",
    "xpnet.initializers",
    "xpnet.callbacks",
    "xpnet.datasets",
    "xpnet.plotting",
    "xpnet.playground",
    "xpnet.inspection",
    "xpnet.interchange",
    "xpnet.sklearn",
    "xpnet.distributed",
    "xpnet.functions",
    "xpnet.backend",
]
LONG = 40  # a module with more names has a page for each group
FIRST = [
    "dense",
    "activations",
    "convolution",
    "pooling",
    "normalization",
    "batch_normalization",
    "recurrent",
    "attention",
    "embedding",
    "dropout",
]


def public_names(module: ModuleType) -> list[str]:
    """Return the names in ``__all__``, or the functions and classes that the module defines; without modules."""
    names = getattr(module, "__all__", None)
    if names is None:
        here = inspect.getmembers(module, lambda value: getattr(value, "__module__", None) == module.__name__)
        names = [name for name, value in here if not name.startswith("_") and callable(value)]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def homes() -> dict[str, str]:
    """Map every public name with its module, such as "xpnet.SGD", to the name that the reference describes."""
    modules = [importlib.import_module(name) for name in MODULES]
    described, home = {}, {}
    for module in reversed(modules):
        for name in public_names(module):
            value = getattr(module, name)
            full = f"{module.__name__}.{name}"
            home[full] = described.setdefault((id(value), name), full)
    return home


def write(folder: Path) -> None:
    """Write the pages to `folder`, and leave pages that are unchanged as they are, so that a second build is fast."""
    home = homes()
    pages = dict(page for name in MODULES for page in _pages(name, home))
    rows = [(f":doc:`{name} <{name}>`", _sentence(importlib.import_module(name))) for name in MODULES]
    toctree = ["", ".. toctree::", "   :hidden:", "", *(f"   {name}" for name in MODULES)]
    pages["index"] = [*_title("API reference", "="), *_table(rows), *toctree]
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, lines in pages.items():
        path, text = folder / f"{name}.rst", "\n".join(lines) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _pages(name: str, home: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the page of a module, and the pages of its groups if it is long."""
    module = importlib.import_module(name)
    names = public_names(module)
    groups: dict[str, list[str]] = {}
    for public in names:
        value = getattr(module, public)
        groups.setdefault(getattr(value, "__module__", type(value).__module__), []).append(public)
    own = {
        group: [n for n in groups[group] if home[f"{name}.{n}"] == f"{name}.{n}"] for group in sorted(groups, key=_rank)
    }
    here = {group: names for group, names in own.items() if names}
    page = [*_title(name, "="), f".. py:module:: {name}", "", _first_paragraph(module), ""]
    page += _table([_row(module, public, home) for public in names])
    if len(names) > LONG:
        page += ["", ".. toctree::", "   :hidden:", "", *(f"   {_file(name, group)}" for group in here)]
    for group, described in here.items():
        source, entries = importlib.import_module(group), _entries(module, described)
        if len(names) > LONG:
            head = [
                *_title(group.rpartition(".")[2].replace("_", " ").capitalize(), "="),
                f".. py:currentmodule:: {name}",
                "",
            ]
            yield _file(name, group), [*head, _first_paragraph(source), "", *entries]
        elif group == name or len(here) == 1:
            page += entries
        else:
            page += ["", *_title(_heading(source), "-"), *_lead(source), *entries]
    yield name, page


def _rank(group: str) -> int:
    family = group.rpartition(".")[2]
    return FIRST.index(family) if family in FIRST else len(FIRST)


def _file(name: str, group: str) -> str:
    return f"{name}-{group.rpartition('.')[2]}"


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _first_paragraph(module: ModuleType) -> str:
    return escape(re.sub(r"\s+", " ", inspect.getdoc(module).split("\n\n")[0]))


def _sentence(module: ModuleType) -> str:
    return re.split(r"(?<=\.) ", _first_paragraph(module))[0]


def _heading(module: ModuleType) -> str:
    """The beginning of the module's docstring, up to the first colon or period."""
    return re.split(r"[.:]", _first_paragraph(module))[0]


def _lead(module: ModuleType) -> list[str]:
    """The docstring's first paragraph, if it says more than the heading."""
    return [_first_paragraph(module), ""] if len(_first_paragraph(module)) > len(_heading(module)) + 1 else []


def _row(module: ModuleType, public: str, home: dict[str, str]) -> tuple[str, str]:
    full = home[f"{module.__name__}.{public}"]
    return f":py:obj:`{public} <{full}>`", summary(getattr(module, public))


def summary(value: object) -> str:
    """Return the first sentence of a docstring, or its first formula, as reStructuredText."""
    if not callable(value) or not (inspect.isclass(value) or inspect.isroutine(value)):
        return f"``{value!r}``"
    first = (inspect.getdoc(value) or "").split("\n\n")[0]
    if is_formula(first):
        return f"``{equations(first)[0]}``"
    return re.split(r"(?<=\.)\s", escape(first.replace("\n", " ")))[0]


def _table(rows: list[tuple[str, str]]) -> list[str]:
    lines = [".. list-table::", "   :class: names", "   :widths: auto", ""]
    for left, right in rows:
        lines += [f"   * - {left}", f"     - {right}"]
    return lines


def _entries(module: ModuleType, names: list[str]) -> list[str]:
    lines = []
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value):
            lines += ["", f".. autoclass:: {module.__name__}.{name}"]
        elif inspect.isroutine(value):
            lines += ["", f".. autofunction:: {module.__name__}.{name}"]
        else:
            text = f"   A `{type(value).__name__}` with its default settings."
            lines += ["", f".. py:data:: {module.__name__}.{name}", f"   :value: {value!r}", "", text]
    return lines
