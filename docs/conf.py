"""Sphinx's settings for the documentation. `python -m docs.build` builds it."""

import os
import sys
from importlib.resources import files
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
os.environ |= {
    "XPNET_BACKEND": "numpy",
    "PYTHONPATH": str(DOCS.parent),
}  # also for the processes that run the notebooks

import xpnet  # noqa: E402
from docs.extensions import gallery, inventories, notebooks, reference, source_pages  # noqa: E402

project, author, release = "xpnet", "The xpnet developers", xpnet.__version__
project_copyright = f"{author}, MIT license"
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "docs.extensions.docstrings",
    "docs.extensions.notebooks",
    "docs.extensions.playground",
    "docs.extensions.source_pages",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb"]
default_role = "py:obj"  # `Sequential` in a docstring is a link

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_fence_as_directive = ["math"]  # ```math, as on GitHub
myst_heading_anchors = 3

notebooks.copy_sources(DOCS / "notebooks")
nb_execution_mode = "cache" if "XPNET_DATA" in os.environ else "off"  # they need MNIST
nb_execution_cache_path = str(DOCS / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

reference.write(DOCS / "reference")
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False  # a method is listed in the class that describes it
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the tables of parameters have the types
numpydoc_show_class_members = False
linkcode_resolve = source_pages.link

intersphinx_mapping = inventories.available(DOCS / "_build" / "inventories")
sphinx_gallery_conf = gallery.settings()

html_theme = "pydata_sphinx_theme"
html_title = "xpnet"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static", str(files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js")]
html_css_files = ["xpnet.css"]
mathjax_path = "tex-svg.js"  # the file that the package django-static-mathjax contains: one file, and no other address
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_show_sourcelink = False
html_show_search_summary = False  # they would be fetched, which browsers refuse for pages on disk
html_sidebars = {"index": [], "changelog": []}
html_theme_options = {
    "show_prev_next": True,
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
