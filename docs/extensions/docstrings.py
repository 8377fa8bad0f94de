"""Docstrings on the site: their formulas as blocks, and their names as links."""

import re

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

SUBSCRIPT = re.compile(r"_(\{[^}]*\}|(?<=Σ_)\w+|\w(?!\w))")  # Σ_batch, z_i, but not lr_min
FORMULA = re.compile(r"(E \w|\w\S*|\w+\[[^\]]*\]) [=~] ")


class Formula(Directive):
    """Formulas in plain text, one on each line."""

    has_content = True

    def run(self):
        text = "\n".join(self.content)
        block = nodes.literal_block(text, classes=["formula"], language="none")
        for i, part in enumerate(SUBSCRIPT.split(text)):
            block += nodes.subscript("", part.strip("{}")) if i % 2 else nodes.Text(part)
        return [block]


def is_formula(summary: str) -> bool:
    """Whether a docstring begins with a formula, such as y = x W + b."""
    return FORMULA.match(summary) is not None


def equations(summary: str) -> list[str]:
    """Return the formulas of a summary, which three spaces separate."""
    return [part.rstrip(",;") for part in re.split(r"\s{3,}|\n", summary)]


def show_formula(app, what, name, obj, options, lines: list[str]) -> None:
    """Put each formula at the beginning of a docstring on a line of a block."""
    end = lines.index("") if "" in lines else len(lines)
    summary = "\n".join(lines[:end])
    if is_formula(summary):
        lines[:end] = [".. formula::", *(f"   {equation}" for equation in equations(summary))]


def escape(line: str) -> str:
    """Keep reStructuredText from taking |x| and (batch, *shape) for markup, except in code."""
    text = enumerate(line.split("`"))
    return "`".join(part if i % 2 else part.replace("|", r"\|").replace(", *", r", \*") for i, part in text)


def escape_lines(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = [line if line.startswith("   ") else escape(line) for line in lines]


def skip_foreign(app, what, name, obj, skip, options) -> bool | None:
    """Leave out methods that scikit-learn adds to its estimators."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def find_name(app: Sphinx, env, node: pending_xref, content):
    """Resolve a name such as `Model` from any module, if only one public name ends with it."""
    if node.get("refdomain") != "py":
        return None
    names = env.get_domain("py").objects
    found = [name for name in names if name.endswith("." + node["reftarget"])]
    if len(found) != 1:
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, content)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("formula", Formula)
    app.connect("autodoc-process-docstring", show_formula, priority=400)  # before numpydoc
    app.connect("autodoc-process-docstring", escape_lines, priority=450)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("missing-reference", find_name, priority=400)  # before other libraries' names
    return {"parallel_read_safe": True, "parallel_write_safe": True}
