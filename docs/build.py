"""Build the documentation, with warnings as errors, and check its links: ``python -m docs.build``.

The pages are written to docs/_build/html. Nothing is downloaded, except the names in the documentation of other libraries if
they can be reached.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.cmd.build import main as sphinx

DOCS = Path(__file__).parent
OUT = DOCS / "_build" / "html"


class Page(HTMLParser):
    """The anchors of a page, its links, and the files that it loads."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "href" in values:
            (self.links if tag in {"a", "area"} else self.loaded).append(values["href"])
        if "src" in values:
            self.loaded.append(values["src"])


def broken_links(folder: Path) -> list[str]:
    """Return links to pages, files and anchors that do not exist, and files that pages load from other addresses."""
    pages = {path: Page(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    found.append(f"{name} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{name} links to {address}, which does not exist")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name} links to {address}, which has no such anchor")
    return found


def main() -> int:
    if status := sphinx(["-b", "html", "-W", "--keep-going", "-q", *sys.argv[1:], str(DOCS), str(OUT)]):
        print(f"Sphinx stopped with status {status}", file=sys.stderr)
        return status
    found = broken_links(OUT)
    print("\n".join(found), file=sys.stderr)
    print(f"The documentation is in {OUT / 'index.html'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
