"""Guide pages as notebooks, with their text and code as cells; the notebooks of examples/ as pages; and a line at the top of each
of these pages that says how to open the notebook.
"""

import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parent.parent
NOTEBOOKS = sorted((DOCS.parent / "examples" / "notebooks").glob("*.ipynb"))
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


def copy_sources(folder: Path) -> None:
    """Put the notebooks where Sphinx finds them."""
    folder.mkdir(exist_ok=True)
    for path in NOTEBOOKS:
        shutil.copy2(path, folder)


def say_how(app: Sphinx, doctree: nodes.document) -> None:
    """Add a line below the title."""
    folder, _, name = app.env.docname.rpartition("/")
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is not None and (folder == "notebooks" or name in pages()):
        address = f"{name}.ipynb" if folder else f"notebooks/{name}.ipynb"
        link = nodes.reference("", f"{name}.ipynb", internal=True, refuri=address)
        opened = nodes.literal("", f"jupyter lab {name}.ipynb")
        line = nodes.paragraph("", "", nodes.Text("This page as a notebook: download "), link, classes=["notebook"])
        line += [nodes.Text(", then run "), opened, nodes.Text(".")]
        title.parent.insert(title.parent.index(title) + 1, line)


def write(app: Sphinx, error: Exception | None) -> None:
    folder = Path(app.outdir) / "notebooks"
    if error is None and app.builder.name == "html":
        copy_sources(folder)
        for name in pages():
            cells = notebook((DOCS / f"{name}.md").read_text(encoding="utf-8"))
            (folder / f"{name}.ipynb").write_text(json.dumps(cells, ensure_ascii=False, indent=1), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", say_how)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
