"""A self-contained HTML page of tables and figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from xpnet.errors import optional_import
from xpnet.tables import Table

STYLE = """
:root { --paper: #ffffff; --ink: #1b1f24; --quiet: #4d5661; --line: #c3cad2; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e8eaed; --quiet: #b4bcc6; --line: #46505c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0.5rem; border-bottom: 1px solid var(--line); }
p { margin: 0.5rem 0; color: var(--quiet); }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px;
  margin: 0.5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: 0.15rem 0.8rem 0.15rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
@media (max-width: 480px) { th, td { padding-right: 0.4rem; font-size: 0.9rem; } }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.9rem; }
code { overflow-wrap: anywhere; white-space: pre-wrap; }
"""


class Page:
    """An HTML page, from top to bottom."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, html: str) -> None:
        self.parts.append(html)

    def section(self, title: str) -> None:
        self.add(f"<h2>{escape(title)}</h2>")

    def text(self, text: str) -> None:
        self.add(f"<p>{escape(text)}</p>")

    def table(self, table: Table) -> None:
        self.add(f'<div class="wide">{table.html()}</div>')

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        rows = (
            f'<tr><th scope="row" style="text-align:left">{escape(a)}</th><td><code>{escape(b)}</code></td></tr>'
            for a, b in pairs
        )
        self.add(f"<table>{''.join(rows)}</table>")

    def details(self, title: str, table: Table) -> None:
        self.add(f'<details><summary>{escape(title)}</summary><div class="wide">{table.html()}</div></details>')

    def listing(self, text: str) -> None:
        self.add(f"<pre>{escape(text)}</pre>")

    def figure(self, description: str, draw: Callable[[], Any]) -> None:
        """Add what `draw` returns, a figure or its axes, as SVG. In an ``img``, its names cannot collide with others."""
        plt = optional_import("matplotlib.pyplot", "plot")
        with plt.rc_context({"svg.hashsalt": "xpnet"}):
            drawn = draw()
            figure, file = getattr(drawn, "figure", None) or drawn, io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
            plt.close(figure)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        self.add(f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}">')

    def html(self, title: str, subtitle: str) -> str:
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
            'initial-scale=1"><meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
            f"<p>{escape(subtitle)}</p>{''.join(self.parts)}</main></body></html>\n"
        )
