"""The page of `Model.playground`: in a real browser, its numbers are those of the library. Host-side, so no `xp` fixture."""

import base64
import copy
import json
import re
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pytest

from tests import browser as browsers
from xpnet import SGD, Adam, DatasetError, Model, datasets, explain, saliency
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import (
    ELU,
    GELU,
    SELU,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Frozen,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    Layer,
    LayerNormalization,
    LeakyReLU,
    LogSoftmax,
    MaxPooling2D,
    RandomTranslation,
    ReLU,
    Rescaling,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)

NUMPY = make_backend("numpy")
rng = np.random.default_rng(0)
BYTES = rng.integers(0, 256, (100, 8, 8)).astype(np.uint8)
LABELS = np.arange(100) % 4
BIG = {"weight_initializer": "he_normal"}

DENSE = [
    Rescaling(1 / 255),
    Flatten(),
    Dense(12, **BIG),
    ReLU(),
    Sequential([Dense(6, use_bias=False), Tanh()]),
    Dense(4),
]
CNN = [Rescaling(1 / 255), Reshape((8, 8, 1)), RandomTranslation(1, 1), Conv2D(3, 3, **BIG), MaxPooling2D(), ReLU(),
       Conv2D(5, (2, 3), padding="same", strides=(2, 1), dilation_rate=1, **BIG), BatchNormalization(momentum=0.5),
       AveragePooling2D(2, strides=1, padding="same"), ReLU(), Flatten(), Dropout(0.3), Frozen(Dense(5)), Tanh(),
       Dense(4)]  # fmt: skip
ACTIVATIONS = [Rescaling(1 / 255, -0.5), Flatten(), Dense(9), LeakyReLU(0.1), Dense(9), ELU(0.7), Dense(9), SELU(), Dense(9),
               GELU(), Dense(9), GELU("tanh"), Dense(9), SiLU(), Dense(9), Softplus(), Dense(9), Sigmoid(), Dense(9),
               LogSoftmax(), Dense(9), Softmax(), Dense(4)]  # fmt: skip
GLOBAL = [
    Rescaling(1 / 255),
    Reshape((8, 8, 1)),
    Conv2D(6, 3, dilation_rate=2, padding=1),
    Tanh(),
    GlobalAveragePooling2D(),
    Dense(4),
]
MAXIMA = [Rescaling(1 / 255), Reshape((8, 8, 1)), Conv2D(6, 3), MaxPooling2D(3, strides=2, padding="same"),
          GlobalMaxPooling2D(), Dense(4)]  # fmt: skip
CASES = {
    "dense": (DENSE, "softmax_cross_entropy"),
    "cnn": (CNN, "softmax_cross_entropy"),
    "activations": (ACTIVATIONS, "softmax_cross_entropy"),
    "global average": (GLOBAL, "binary_cross_entropy"),
    "global maximum": (MAXIMA, "mean_squared_error"),
    "probabilities": ([*DENSE, Softmax()], "categorical_cross_entropy"),
}


@pytest.fixture(scope="module")
def browser():
    opened = browsers.start()
    yield opened
    opened.driver.quit()


def one_hot(labels):
    return np.eye(4, dtype="float32")[labels]


def trained(layers, loss, epochs=2):
    model = Model(layers, loss, Adam(0.003), backend=NUMPY)
    model.fit(
        BYTES, LABELS if "categorical" in loss or "softmax" in loss else one_hot(LABELS), epochs=epochs, verbose=0
    )
    return model


def wide(model):
    """The same model in float64, with the same float32 weights."""
    twin = copy.deepcopy(model)
    return twin.to("numpy", dtype="float64")


def targets(model, labels):
    return labels if "Softmax" in type(model.loss).__name__ else one_hot(labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_numbers_in_the_page_are_those_of_the_library(name, browser, tmp_path):
    """100 images: predictions, losses and gradients by the input. The page computes with the float32 weights in float64."""
    model = trained(*CASES[name])
    browser.open(model.playground(tmp_path / "page.html", BYTES, LABELS))

    rows = browser.run(
        "return arguments[0].map((image, i) => { const run = network.gradients(image, arguments[1][i]);"
        "return [run.p, run.dx].map((values) => Array.from(values)).concat([run.loss]); })",
        BYTES.reshape(100, -1).tolist(), LABELS.tolist(),
    )  # fmt: skip

    p, dx, losses = ([row[k] for row in rows] for k in range(3))
    exact, y = wide(model), targets(model, LABELS)
    np.testing.assert_allclose(p, to_numpy(model.predict(BYTES)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(p, to_numpy(exact.predict(BYTES)), rtol=1e-6, atol=1e-7)
    for i in range(100):
        expected = to_numpy(saliency(exact, BYTES[i : i + 1], y[i : i + 1]))
        np.testing.assert_allclose(dx[i], expected.reshape(-1), rtol=1e-5, atol=1e-8)
        assert losses[i] == pytest.approx(exact.evaluate(BYTES[i : i + 1], y[i : i + 1])[0], rel=1e-5, abs=1e-7)
    assert browser.errors() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "global maximum"])
def test_gradients_of_weights_and_the_step_are_those_of_the_library(name, browser, tmp_path):
    model = trained(*CASES[name])
    model.optimizer = SGD(0.1)
    browser.open(model.playground(tmp_path / "page.html", BYTES, LABELS))
    exact = wide(model)

    for i in range(10):
        code = (
            "const run = network.gradients(arguments[0], arguments[1]); const after = network.afterStep(run, arguments[0], 0.1);"
            "const lists = (grads) => Object.entries(grads).map(([name, values]) => [name, Array.from(values)]);"
            "return [run.steps.map(({ layer, grads }) => [layer.path, lists(grads)]),"
            "Array.from(after.p), Array.from(network.forward(arguments[0]).p)]"
        )
        grads, after, still = browser.run(code, BYTES[i].reshape(-1).tolist(), int(LABELS[i]))
        x, y = BYTES[i : i + 1], targets(model, LABELS)[i : i + 1]
        explained, stepped = explain(exact, x, y), copy.deepcopy(exact)
        stepped.train_on_batch(x, y)

        for path, arrays in grads:
            for leaf, values in arrays:
                expected = explained[f"{path}.d{'W' if leaf == 'weight' else 'b'}"]
                np.testing.assert_allclose(values, expected.reshape(-1), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(after, to_numpy(stepped.predict(x))[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(still, to_numpy(exact.predict(x))[0], rtol=1e-5, atol=1e-7)


STROKES = {  # digits as a reader draws them, in units of the drawing area
    0: [[(0.5, 0.2), (0.36, 0.3), (0.32, 0.5), (0.36, 0.7), (0.5, 0.8), (0.64, 0.7), (0.68, 0.5), (0.64, 0.3), (0.5, 0.2)]],
    1: [[(0.52, 0.2), (0.5, 0.5), (0.48, 0.8)]],
    2: [[(0.33, 0.33), (0.42, 0.22), (0.57, 0.22), (0.64, 0.34), (0.58, 0.5), (0.34, 0.78), (0.7, 0.77)]],
    3: [[(0.35, 0.25), (0.5, 0.2), (0.63, 0.28), (0.6, 0.42), (0.47, 0.48), (0.62, 0.55), (0.65, 0.7), (0.5, 0.8), (0.33, 0.74)]],
    4: [[(0.38, 0.2), (0.33, 0.5), (0.66, 0.5)], [(0.62, 0.22), (0.6, 0.82)]],
    5: [[(0.65, 0.22), (0.4, 0.23), (0.37, 0.45), (0.55, 0.45), (0.65, 0.6), (0.58, 0.76), (0.36, 0.78)]],
    6: [[(0.6, 0.2), (0.42, 0.4), (0.36, 0.62), (0.44, 0.78), (0.6, 0.76), (0.64, 0.62), (0.52, 0.54), (0.38, 0.62)]],
    7: [[(0.32, 0.24), (0.67, 0.22), (0.52, 0.5), (0.44, 0.8)]],
    8: [[(0.6, 0.26), (0.45, 0.2), (0.38, 0.32), (0.5, 0.47), (0.63, 0.62), (0.56, 0.78), (0.42, 0.76), (0.38, 0.62),
         (0.55, 0.45), (0.62, 0.32), (0.58, 0.24)]],
    9: [[(0.62, 0.32), (0.5, 0.22), (0.38, 0.32), (0.42, 0.48), (0.58, 0.46), (0.63, 0.3), (0.62, 0.55), (0.58, 0.8)]],
}  # fmt: skip


def draw(browser, strokes, pointer="mouse"):
    browser.run("window.scrollTo(0, 0); document.getElementById('clear').click()")
    box = browser.run(
        "const b = document.getElementById('paper').getBoundingClientRect(); return [b.left, b.top, b.width]"
    )
    for stroke in strokes:
        places = [(box[0] + x * box[2], box[1] + y * box[2]) for x, y in stroke]
        browser.pointer("down", *places[0], pointer)
        for place in places[1:]:
            browser.pointer("move", *place, pointer)
        browser.pointer("up", *places[-1], pointer)
    browser.settle()


@pytest.fixture(scope="module")
def digits():
    """A network for MNIST, and its test images."""
    try:
        (x, y), test = datasets.mnist(download=False)
    except DatasetError as error:
        pytest.skip(f"MNIST is not on this machine; set XPNET_DATA to its folder: {error}")
    layers = [Rescaling(1 / 255), Flatten(), Dense(128, activation="relu"), Dense(10)]
    model = Model(layers, "softmax_cross_entropy", Adam(0.002), backend=NUMPY)
    model.fit(x, y, batch_size=128, epochs=2, verbose=0)
    return model, test


@pytest.mark.slow
def test_digits_that_are_drawn_are_recognized(digits, browser, tmp_path):
    """Pointer events draw ten digits. The page brings them into the form of MNIST's images."""
    model, (x, y) = digits
    browser.open(model.playground(tmp_path / "page.html", x[:200], y[:200]))

    found = {}
    for digit, strokes in STROKES.items():
        draw(browser, strokes, ("mouse", "pen", "touch")[digit % 3])
        found[digit] = browser.run("return [answer(state.run), Array.from(state.input)]")

    assert [answer for answer, _ in found.values()] == list(STROKES)
    for _, image in found.values():
        image = np.reshape(image, (28, 28))
        rows, columns = np.nonzero(image > 25)
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22
        center = [np.average(np.arange(28), weights=image.sum(axis)) for axis in (1, 0)]
        np.testing.assert_allclose(center, 14.0, atol=0.1)
        expected = to_numpy(wide(model).predict(image[None]))[0]
        got = browser.run("return Array.from(network.forward(arguments[0]).p)", image.reshape(-1).tolist())
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.slow
def test_the_page_is_used_with_the_keyboard(digits, browser, tmp_path):
    model, (x, y) = digits
    browser.open(model.playground(tmp_path / "page.html", x[:200], y[:200]))
    browser.run("document.getElementById('clear').click(); document.getElementById('paper').focus()")
    for _ in range(6):
        browser.key("ArrowUp")
    browser.key(" ", "Space", " ")
    for _ in range(12):
        browser.key("ArrowDown")
    browser.settle()
    assert browser.run("return [answer(state.run), state.strokes[0].length]") == [1, 13]

    browser.run("document.getElementById('weights').focus()")
    before = browser.run("return state.entry")
    browser.key("ArrowRight")
    browser.settle()
    assert browser.run("return state.entry") == before + 1
    assert "dW[" in browser.run("return document.getElementById('weight').textContent")

    focusable = "button, select, input, [tabindex='0']"
    visible = f"[...document.querySelectorAll({json.dumps(focusable)})].filter((node) => node.getClientRects().length)"
    names = browser.run(
        f"return {visible}.map((node) => node.getAttribute('aria-label') || node.textContent || node.labels[0]?.textContent)"
    )
    assert all(names)


@pytest.mark.slow
def test_a_sample_goes_in_exactly_and_the_verdict_follows_the_label(digits, browser, tmp_path):
    model, (x, y) = digits
    browser.open(model.playground(tmp_path / "page.html", x[:500], y[:500]))
    browser.run("const s = document.getElementById('sample'); s.value = '3'; s.dispatchEvent(new Event('change'))")
    browser.settle()

    assert browser.run("return Array.from(state.input)") == x[3].reshape(-1).tolist()
    selected = "return document.getElementById('sample').value"
    assert browser.run(selected) == "3"
    assert browser.run("return document.getElementById('verdict').textContent") == f"correct: {y[3]}"

    browser.run("const t = document.getElementById('target'); t.value = '7'; t.dispatchEvent(new Event('change'))")
    browser.settle()
    assert browser.run("return document.getElementById('verdict').textContent") == f"incorrect: the network says {y[3]}"

    wrong = np.flatnonzero(to_numpy(model.predict_classes(x[:500])) != y[:500])
    assert f"{len(wrong)} of 500 samples" in browser.run("return document.getElementById('mistakes-text').textContent")
    browser.run("document.querySelector('#mistakes button').click()")
    browser.settle()
    image = browser.run("return Array.from(state.input)")
    assert image in [x[i].reshape(-1).tolist() for i in wrong]
    assert browser.run("return document.getElementById('verdict').className") == "incorrect"
    assert browser.run(selected) == ""  # so that a reader can select sample 3 again


@pytest.mark.slow
def test_steps_lead_through_backpropagation(browser, tmp_path):
    browser.open(trained(*CASES["cnn"]).playground(tmp_path / "page.html", BYTES, LABELS))
    titles = []
    while True:
        titles.append(browser.run("return document.querySelector('#stage h3').textContent"))
        if browser.run("return document.getElementById('next').disabled"):
            break
        browser.run("document.getElementById('next').click()")

    assert titles[0] == "forward: 0 Rescaling"
    assert titles[len(titles) // 2 - 1 : len(titles) // 2 + 1] == ["the loss", "backward: 14 Dense"]
    assert titles[-2:] == ["backward: 0 Rescaling", "the step"]
    assert browser.errors() == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_and_can_be_read(width, dark, browser, tmp_path):
    names = [
        "<script>document.title = 'broken'</script>",
        "a name that is much longer than a phone is wide " * 2,
        "2",
        "3",
    ]
    page = trained(*CASES["cnn"]).playground(
        tmp_path / "page.html", BYTES, LABELS, class_names=names, title="<b>Title</b>"
    )
    browser.open(page, width, dark)

    for stage in ("0", "15", "20"):
        browser.run(
            "const s = document.getElementById('step'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
            stage,
        )
        browser.settle()
        assert browser.overlaps() == []
        assert browser.low_contrast() == []
        assert not browser.is_wider_than_the_window()
    paper = browser.run(
        "const box = document.getElementById('paper').getBoundingClientRect(); return [box.width, box.height]"
    )
    assert paper[0] == paper[1] == (200 if width == 390 else 260)
    seen = browser.run("return document.getElementById('seen').getBoundingClientRect()")
    assert seen["width"] > 35
    assert browser.run("return document.getElementById('paper').getBoundingClientRect().right") < seen["left"]
    assert browser.errors() == []
    assert browser.run("return document.title") == "<b>Title</b>"
    assert browser.run("return [document.scripts.length, document.querySelectorAll('b').length]") == [3, 0]
    assert names[0] in browser.run("return document.getElementById('bars').textContent")


@pytest.mark.slow
def test_features_can_be_typed(browser, tmp_path):
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    model = Model([Dense(5), Tanh(), Dense(1)], "mean_squared_error", backend=NUMPY)
    model.fit(x, y, verbose=0)
    browser.open(model.playground(tmp_path / "page.html", x, y))
    assert browser.run(
        "return document.getElementById('sample').selectedOptions[0].textContent"
    ) == f"0: {y[0]:.4g}".replace("-", "−")
    code = (
        "[...document.querySelectorAll('#features input')].forEach((box, i) => "
        "{ box.value = arguments[0][i]; box.dispatchEvent(new Event('input')); })"
    )
    browser.run(code, x[0].tolist())
    browser.settle()

    assert browser.run("return state.run.p[0]") == pytest.approx(float(model.predict(x[:1])[0]), abs=1e-5)
    assert browser.run("return document.getElementById('sample').value") == ""
    assert not browser.overlaps()


@pytest.mark.slow
def test_one_sigmoid_output_has_two_classes(browser, tmp_path):
    x = rng.normal(size=(50, 2))
    y = (x[:, 0] > 0).astype(int)
    model = Model([Dense(1)], "binary_cross_entropy", SGD(1.0), backend=NUMPY)
    model.fit(x, y, epochs=20, verbose=0)
    browser.open(model.playground(tmp_path / "page.html", x, y, class_names=["left", "right"]))
    browser.settle()

    shown = browser.run("return [...document.querySelectorAll('#bars tr')].map((row) => row.textContent)")
    p = float(model.predict(x[:1])[0])
    assert [float(re.search(r"([\d.]+) %", text)[1]) for text in shown] == pytest.approx(
        [100 - 100 * p, 100 * p], abs=0.01
    )


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_weights_are_in_the_file(precision, tmp_path):
    model = trained(*CASES["dense"], epochs=1)
    page = model.playground(tmp_path / "page.html", precision=precision).read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    first = next(layer for layer in data["layers"] if layer["kind"] == "dense")["arrays"]["weight"]

    decoded = np.frombuffer(base64.b64decode(first["data"]), np.dtype(precision).newbyteorder("<")).reshape(
        first["shape"]
    )
    np.testing.assert_array_equal(decoded, model.parameters[2]["weight"].astype(precision))
    assert data["parameters"] == sum(array.size for array in model.get_weights())
    assert data["weightBytes"] == data["parameters"] * (4 if precision == "float32" else 2)


def test_the_page_loads_nothing(tmp_path):
    page = (
        trained(*CASES["dense"], epochs=1).playground(tmp_path / "page.html", BYTES, LABELS).read_text(encoding="utf-8")
    )

    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in re.sub(r'<meta http-equiv="Content-Security-Policy"', "", page)


def test_the_template_is_a_part_of_the_package():
    folder = files("xpnet.playground")

    assert all((folder / name).is_file() for name in ("page.html", "page.css", "network.js", "page.js"))


@dataclass(frozen=True)
class Own(Layer):
    def forward(self, params, x):
        return x, lambda dy, need_dx=True: (dy, {})


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Flatten(), LayerNormalization(), Dense(4)], r"layer 1, LayerNormalization\. Its script has these layers"),
        ([Flatten(), Sequential([Dense(4), Own()])], "layer 1.1, Own"),
        ([Flatten(), Residual(Dense(64)), Dense(4)], "layer 1, Add"),
    ],
)
def test_an_unknown_layer_is_named(layers, message, tmp_path):
    model = Model(layers, "softmax_cross_entropy", backend=NUMPY).build((8, 8))

    with pytest.raises(ValueError, match=message):
        model.playground(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_refuses_what_the_page_cannot_show(tmp_path):
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match="one of the losses"):
        Model([Dense(1)], "huber", backend=NUMPY).build((3,)).playground(path)
    with pytest.raises(ValueError, match="one seed"):
        Model([Dense(1)], "mse", seed=(0, 1), backend=NUMPY).build((3,)).playground(path)
    shared = Dense(3)
    with pytest.raises(ValueError, match="the layer at 0 and 1"):
        Model([shared, shared], "mse", backend=NUMPY).build((3,)).playground(path)
    with pytest.raises(ValueError, match="gray images"):
        Model([Flatten(), Dense(1)], "mse", backend=NUMPY).build((8, 8, 3)).playground(path)
    model = Model([Flatten(), Dense(4)], "softmax_cross_entropy", backend=NUMPY).build((8, 8))
    with pytest.raises(ValueError, match="4 names"):
        model.playground(path, class_names=["a"])
    with pytest.raises(ValueError, match="x must have samples"):
        model.playground(path, BYTES.reshape(100, 64), LABELS)
    with pytest.raises(ValueError, match="a label for each"):
        model.playground(path, BYTES, LABELS[:3])
    with pytest.raises(ValueError, match=r"at least one sample.*\(0, 8, 8\)"):
        model.playground(path, BYTES[:0], LABELS[:0])
    with pytest.raises(ValueError, match=r"in 0 \.\. 3"):
        model.playground(path, BYTES, LABELS % 4 + 1)
    with pytest.raises(ValueError, match="needs the samples"):
        model.playground(path, y=LABELS)
    with pytest.raises(ValueError, match="precision"):
        model.playground(path, precision="int8")
    with pytest.raises(RuntimeError, match="no parameters yet"):
        Model([Dense(1)], "mse", backend=NUMPY).playground(path)
    assert not path.exists()
