"""The report of a trained model. Host-side, so no `xp` fixture."""

import re

import numpy as np
import pytest

import xpnet
from tests import browser as browsers
from xpnet import SGD, Model
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import Conv2D, Dense, Flatten, ReLU, Rescaling, Tanh

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow

NUMPY = make_backend("numpy")
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (60, 8, 8)).astype(np.uint8)
LABELS = np.arange(60) % 3
NAMES = ["<script>document.title = 'broken'</script>", "b", "c"]


@pytest.fixture(scope="module")
def browser():
    opened = browsers.start()
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def trained():
    layers = [Rescaling(1 / 255), Flatten(), Dense(8), ReLU(), Dense(3)]
    model = Model(layers, "softmax_cross_entropy", SGD(0.1), ["accuracy"], seed=7, backend=NUMPY)
    model.fit(IMAGES, LABELS, epochs=4, validation_data=(IMAGES, LABELS), verbose=0)
    return model


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    return xpnet.report(trained, IMAGES, LABELS, tmp_path_factory.mktemp("report") / "report.html", class_names=NAMES)


def test_the_report_has_what_a_repetition_needs(trained, page):
    text = page.read_text(encoding="utf-8")

    for heading in ("Settings", "Data", "Training", "Classes", "Calibration", "Worst mistakes", "Most uncertain predictions",
                    "Layers", "Time and memory", "To repeat the run"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    assert "SGD(learning_rate=0.1" in text
    assert re.search(r"seed</th><td><code>7<", text)
    assert re.search(r"batch_size</th><td><code>32<", text)
    assert re.search(r"epochs</th><td><code>4<", text)
    assert f"numpy            {np.__version__}" in text
    assert len(re.findall("[0-9a-f]{64}", text)) == 2
    labels = to_numpy(trained.predict_classes(IMAGES))
    precision = np.mean(LABELS[labels == 1] == 1)
    assert f'>b</td><td style="text-align:right">{precision:.4f}<' in text
    assert f"{np.sum(labels != LABELS)} of 60 predictions are wrong" in text


def test_the_report_loads_nothing_and_escapes_names(page):
    text = page.read_text(encoding="utf-8")

    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert text.count('src="data:image/svg+xml;base64,') == 8


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_report_fits_and_can_be_read(width, dark, page, browser):
    browser.open(page, width, dark)

    assert browser.low_contrast() == []
    assert browser.overlaps() == []
    assert not browser.is_wider_than_the_window()
    assert browser.run("return [...document.images].every((image) => image.naturalWidth > 0 && image.alt)")
    assert browser.errors() == []
    assert browser.run("return document.title") == "Training report"


def test_a_report_of_values(tmp_path):
    x = rng.normal(size=(50, 3))
    y = x @ [1.0, 2.0, 3.0]
    model = Model([Dense(5), Tanh(), Dense(1)], "mean_squared_error", backend=NUMPY)
    model.fit(x, y, verbose=0)
    text = xpnet.report(model, x, y, tmp_path / "report.html").read_text(encoding="utf-8")

    assert "<h2>Largest errors</h2>" in text
    assert "<h2>Classes</h2>" not in text


def test_reports_of_other_forms(tmp_path):
    """Images with a convolution and one-hot targets, rows that are not images, and one sigmoid output."""
    path = tmp_path / "report.html"
    convolution = Model([Conv2D(2, 3), Flatten(), Dense(3)], "softmax_cross_entropy", backend=NUMPY).build((8, 8, 1))
    xpnet.report(convolution, IMAGES[..., None], np.eye(3)[LABELS], path)
    rows = Model([Dense(1)], "binary_cross_entropy", backend=NUMPY).build((5,))
    text = xpnet.report(rows, rng.normal(size=(20, 5)), np.arange(20) % 2, path, title="<b>").read_text(
        encoding="utf-8"
    )

    assert "first values" in text
    assert "<h1>&lt;b&gt;</h1>" in text
    assert "<h2>Training</h2>" not in text
    with pytest.raises(ValueError, match="one seed"):
        xpnet.report(
            Model([Dense(1)], "mse", seed=(0, 1), backend=NUMPY).build((5,)), np.ones((3, 5)), np.ones(3), path
        )


def test_every_class_has_one_name(tmp_path):
    model = Model([Dense(3)], "softmax_cross_entropy", backend=NUMPY).build((5,))
    for names in (["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(ValueError, match="3 names"):
            xpnet.report(model, np.ones((3, 5)), np.arange(3), tmp_path / "report.html", class_names=names)
    assert not (tmp_path / "report.html").exists()
