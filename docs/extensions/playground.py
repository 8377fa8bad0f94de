"""The page on which readers draw a digit, for the home page: from examples/mnist_playground.py, or else with smaller digits."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

from docs.extensions.gallery import PLAYGROUND
from xpnet import Adam, Model, datasets
from xpnet.layers import Dense, Flatten, ReLU, Rescaling


def add_page(app: Sphinx, error: Exception | None) -> None:
    page = Path(app.outdir) / "draw-a-digit.html"
    if error is None and PLAYGROUND.exists():
        shutil.copy2(PLAYGROUND, page)
    elif error is None:
        (x, y), (x_test, y_test) = datasets.digits()
        model = Model(
            [Rescaling(1 / 16), Flatten(), Dense(32), ReLU(), Dense(10)], "softmax_cross_entropy", Adam(0.003)
        )
        model.fit(x, y, epochs=20, verbose=0)
        model.playground(page, x_test, y_test, title="Draw a digit")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", add_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
