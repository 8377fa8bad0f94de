"""The scripts of examples/ as pages of a gallery, with their output and figures.

Scripts run with short settings, because a build should take minutes. A script that needs MNIST runs if XPNET_DATA names its
folder; otherwise its page has no output.
"""

import ast
import os
import re
import shutil
import sys
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "docs" / "_build" / "examples"  # copies of the scripts, with titles as Sphinx-Gallery needs them
PLAYGROUND = SOURCE / "networks" / "digits.html"  # what mnist_playground.py writes
SHARED = ("arguments.py", "reporting.py")  # modules that scripts import
SECTIONS = {
    "networks": "Networks to start from\n----------------------\n\nScripts to copy and to change.\n",
    "reports": "Five reports\n------------\n\nReproductions of five reports on neural networks built from scratch. "
    ":doc:`/reproductions` compares the results of the full runs with those of the reports.\n",
}
THUMBNAILS = {  # of scripts that draw nothing, and of full runs, whose figures are better than those of short ones
    "char_rnn": "_static/thumbnails/char_rnn.svg",
    "mnist": "_static/thumbnails/mnist.svg",
    "mnist_cnn": "_static/thumbnails/mnist_cnn.svg",
    "mnist_distributed": "_static/thumbnails/mnist_distributed.svg",
    "mnist_playground": "_static/thumbnails/mnist_playground.svg",
    "sklearn_grid_search": "_static/thumbnails/sklearn_grid_search.svg",
    "row_lstm": "_static/thumbnails/row_lstm.svg",
    "report_a_jsneural": "figures/a2_correct_weights.png",
    "report_b_assignment": "figures/b1_correct_lr_0.03_weights.png",
    "report_c_exploring": "figures/c_curves.png",
    "report_d_demo": "figures/d_predictions.png",
    "report_e_slides": "figures/e4_accuracy_and_confusion.png",
}


def scripts() -> list[Path]:
    return [path for path in sorted((ROOT / "examples").glob("*.py")) if path.name not in SHARED]


def short_run(name: str) -> list[str]:
    """Return the arguments with which the build runs a script."""
    if name.startswith("report_"):
        return ["--quick", "--out", "figures"]
    if name == "mnist_cli":
        return ["--dataset", "digits", "--plot", "digits.png"]
    if name == "mnist_playground":
        return ["--epochs", "2", "--out", PLAYGROUND.name]
    return [] if name == "mnist" else ["--quick"]


def arguments(gallery_conf: dict, script_vars: dict) -> list[str]:
    return short_run(Path(script_vars["src_file"]).stem)


def runs(path: Path) -> bool:
    """Whether the build runs a script: it can be short, and MNIST is there if the script needs it."""
    text = path.read_text(encoding="utf-8")
    short = short_run(path.stem) != ["--quick"] or "--quick" in text
    return short and ("XPNET_DATA" in os.environ or "mnist(" not in text or path.stem == "mnist_cli")


def saved_figures(block: tuple, block_vars: dict, gallery_conf: dict) -> str:
    """Show the PNG files that the script has saved: an image scraper of Sphinx-Gallery."""
    folder, shown = Path(block_vars["src_file"]).parent, []
    for figure, target in zip(
        sorted([*folder.glob("*.png"), *folder.glob("figures/*.png")]), block_vars["image_path_iterator"], strict=False
    ):
        shutil.move(figure, target)
        shown.append(target)
    return figure_rst(shown, gallery_conf["src_dir"])


def page_source(path: Path) -> str:
    """Return a script whose docstring has a title, and says where the script is and how it was run."""
    code = path.read_text(encoding="utf-8")
    tree = ast.parse(code)
    first, _, rest = ast.get_docstring(tree).partition("\n\n")
    title, _, more = first.replace("\n", " ").partition(": ")
    rest = re.sub(r"^ *(?=python )", "    ", f"\n\n{rest}", flags=re.MULTILINE).replace(
        "\n\n    python", "\n\n::\n\n    python"
    )
    text = "\n".join([title.strip("."), "=" * 150, "", more[:1].upper() + more[1:], rest.rstrip(), "", _note(path)])
    body = "".join(code.splitlines(keepends=True)[tree.body[0].end_lineno :])
    picture = THUMBNAILS.get(path.stem)
    setting = f"\n# sphinx_gallery_thumbnail_path = {picture!r}\n" if picture else ""
    return f'r"""\n{text}\n"""\n# %%\n\n{body.strip()}\n{setting}'


def _note(path: Path) -> str:
    where = f"The script is ``examples/{path.name}`` in the repository."
    if not runs(path):
        return where
    command = " ".join(["python", f"examples/{path.name}", *short_run(path.stem)])
    return f"{where} The output below is from ``{command}``."


def settings() -> dict:
    """Write the sources of the gallery, and return the settings of Sphinx-Gallery."""
    sys.path.append(str(ROOT / "examples"))  # for the modules that scripts import
    for section, header in SECTIONS.items():
        (SOURCE / section).mkdir(parents=True, exist_ok=True)
        _write(SOURCE / section / "GALLERY_HEADER.rst", header)
    _write(
        SOURCE / "GALLERY_HEADER.rst",
        "Gallery\n=======\n\nAll scripts in the folder ``examples/``, with their output.\n",
    )
    for path in scripts():
        _write(SOURCE / _section(path) / path.name, page_source(path))
    return {
        "examples_dirs": "_build/examples",
        "gallery_dirs": "gallery",
        "filename_pattern": "|".join(rf"/{path.stem}\.py$" for path in scripts() if runs(path)) or "^$",
        "image_scrapers": ("docs.extensions.gallery.saved_figures",),
        "reset_argv": "docs.extensions.gallery.arguments",
        "reset_modules": (),
        "first_notebook_cell": "# The arguments of the script; see its --help\nimport sys\nsys.argv[1:] = []",
        "remove_config_comments": True,
        "download_all_examples": False,
        "show_memory": False,
        "show_signature": False,
        "min_reported_time": 1e9,
        "write_computation_times": False,
        "within_subsection_order": "FileNameSortKey",
        "abort_on_example_error": True,
    }


def _section(path: Path) -> str:
    return "reports" if path.stem.startswith("report_") else "networks"


def _write(path: Path, text: str) -> None:
    """Write a file if its content has changed, so that Sphinx-Gallery runs only changed scripts."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
