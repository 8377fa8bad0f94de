"""Guide pages as notebooks: their text and code as cells, and a line at the top of each page that says how to open it."""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parent.parent
WITHOUT = {"contributing", "datasets", "index"}  # their code is a part of something else, or needs files


def pages() -> list[str]:
    """Return the names of the pages whose code runs from top to bottom."""
    named = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    return sorted(name for name, text in named.items() if "\n```python\n" in text and name not in WITHOUT)


def notebook(text: str) -> dict:
    """Return a Markdown page as a notebook without outputs. Each block of Python is a cell."""
    cells = []
    for i, part in enumerate(re.split(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)):
        source = part.strip("\n").splitlines(keepends=True)
        if source and i % 2:
            cells.append(
                {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
            )
        elif source:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": source})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def say_how(app: Sphinx, doctree: nodes.document) -> None:
    """Add a line below the title."""
    name = app.env.docname
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is not None and name in pages():
        link = nodes.reference("", f"{name}.ipynb", internal=True, refuri=f"notebooks/{name}.ipynb")
        opened = nodes.literal("", f"jupyter lab {name}.ipynb")
        line = nodes.paragraph("", "", nodes.Text("This page as a notebook: download "), link, classes=["notebook"])
        line += [nodes.Text(", then run "), opened, nodes.Text(".")]
        title.parent.insert(title.parent.index(title) + 1, line)


def write(app: Sphinx, error: Exception | None) -> None:
    folder = Path(app.outdir) / "notebooks"
    if error is None and app.builder.name == "html":
        folder.mkdir(exist_ok=True)
        for name in pages():
            cells = notebook((DOCS / f"{name}.md").read_text(encoding="utf-8"))
            (folder / f"{name}.ipynb").write_text(json.dumps(cells, ensure_ascii=False, indent=1), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", say_how)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
