"""The source code on the site: a page for each file, and links to its lines from the API reference and from quotations."""

import importlib
import inspect
from collections.abc import Iterator
from html import escape
from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("xpnet", "tests", "examples")


def page_of(path: Path) -> str:
    return f"code/{path.relative_to(ROOT).as_posix()}"


def line_of(path: Path, code: str) -> int | None:
    """Return the number of the line that begins with the quoted code."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((i for i, line in enumerate(lines, 1) if line.strip().startswith(code)), None)


def link(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of a name's source code: `linkcode_resolve`. Pages of the reference are in one folder."""
    value = importlib.import_module(info["module"])
    for part in info["fullname"].split("."):
        value = getattr(value, part, None)
    value = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "func", None) or value)  # of properties
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return None
    path = Path(inspect.getsourcefile(value)).resolve()
    if not path.is_relative_to(ROOT):
        return None
    return f"../{page_of(path)}.html#line-{inspect.getsourcelines(value)[1]}"


def link_to_code(app: Sphinx, doctree: nodes.document) -> None:
    """Let links of Markdown pages to files of the repository lead to the pages of their code."""
    up = "../" * app.env.docname.count("/")
    here = (Path(app.srcdir) / app.env.docname).parent
    for node in [*doctree.findall(download_reference), *doctree.findall(pending_xref)]:
        path = (here / node["reftarget"]).resolve()
        path = path if path.is_file() else path.with_suffix(".md")  # MyST takes the ending off
        if not path.is_file() or path.relative_to(ROOT).parts[0] not in FOLDERS:
            continue
        line = line_of(path, node.astext()) if path.suffix == ".py" else None
        address = f"{up}{page_of(path)}.html" + (f"#line-{line}" if line else "")
        node.replace_self(nodes.reference("", "", *node.children, internal=True, refuri=address))


def code_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    formatter = HtmlFormatter(linenos="inline", lineanchors="line", anchorlinenos=True, cssclass="highlight source")
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")):
        if path.suffix in {".py", ".md"} and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            code = path.read_text(encoding="utf-8")
            body = highlight(code, get_lexer_for_filename(name, stripnl=False), formatter) if code else ""
            yield page_of(path), {"title": name, "body": f"<h1>{escape(name)}</h1>{body}"}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", link_to_code, priority=100)  # before Sphinx copies the files of download links
    app.connect("html-collect-pages", code_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
