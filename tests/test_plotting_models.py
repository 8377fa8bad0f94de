"""Plots of a model: calibration, decision regions, the loss, the network, and animations. Host-side, so no `xp` fixture."""

import io

import numpy as np
import pytest

from tests.test_model import spirals
from xpnet import SGD, Model, plotting
from xpnet.backend import make_backend
from xpnet.layers import Conv2D, Dense, Flatten, Tanh
from xpnet.plotting.figures import BLUE, VERMILLION

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("agg")
X, Y = spirals()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def model():
    return Model([Dense(4), Tanh(), Dense(3)], "softmax_cross_entropy", SGD(0.5), backend=make_backend("numpy")).build(
        (2,)
    )


def test_calibration_compares_probability_and_accuracy_in_bins():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.85, 0.15], [0.4, 0.6]])
    ax = plotting.calibration([0, 1, 0, 1], p, bins=5)

    line = next(line for line in ax.lines if line.get_label() == "network")
    np.testing.assert_allclose(line.get_xdata(), [0.6, 0.85])
    np.testing.assert_allclose(line.get_ydata(), [1.0, 2 / 3])
    expected = 0.25 * 0.4 + 0.75 * (0.85 - 2 / 3)
    assert plotting.calibration_error([0, 1, 0, 1], p, bins=5) == pytest.approx(expected)
    assert f"{expected:.3f}" in ax.get_title()


def test_calibration_of_one_output():
    """p is the probability of class 1, so a p of 0.1 says 0 with 0.9."""
    assert plotting.calibration_error([0, 1], np.array([0.1, 0.9])) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0], "Each sample needs a label"),
        ([0, 2], r"in 0 \.\. 1"),
        ([-1, 1], r"in 0 \.\. 1"),
        (["0", "1"], r"in 0 \.\. 1"),
    ],
)
def test_plots_refuse_labels_without_a_class(labels, message):
    with pytest.raises(ValueError, match=message):
        plotting.calibration(labels, np.array([0.1, 0.9]))
    classifier = Model([Dense(1)], "binary_cross_entropy", backend=make_backend("numpy")).build((2,))
    with pytest.raises(ValueError, match=message):
        plotting.decision_regions(classifier, X[:2], labels)


def test_calibration_needs_samples_and_bins():
    with pytest.raises(ValueError, match="at least one sample"):
        plotting.calibration([], np.ones((0, 2)))
    with pytest.raises(ValueError, match="bins"):
        plotting.calibration([0, 1], np.array([0.1, 0.9]), bins=0)


def test_decision_regions_have_the_colors_of_the_predicted_classes(model):
    model.fit(X, Y, epochs=5, verbose=0)
    ax = plotting.decision_regions(model, X, Y, class_names=["a", "b", "c"], points=20)

    image = ax.images[0].get_array()
    left, _, low, _ = ax.images[0].get_extent()
    corner = np.array([[left, low]])
    label = int(model.predict_classes(corner)[0])
    expected = [int(plotting.figures.COLORS[label][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    np.testing.assert_allclose(image[0, 0, :3], expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert sum(len(points.get_offsets()) for points in ax.collections) == len(X)
    with pytest.raises(ValueError, match="two features"):
        plotting.decision_regions(model, np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"y\.argmax"):
        plotting.decision_regions(model, X, np.eye(3)[Y])
    values = Model([Dense(1)], "mse", backend=make_backend("numpy")).build((2,))
    with pytest.raises(ValueError, match="predicts classes"):
        plotting.decision_regions(values, X)


@pytest.mark.parametrize(
    "draw",
    [
        lambda model: plotting.decision_regions(model, X, Y),
        lambda model: plotting.loss_slice(model, X, Y),
        plotting.network_diagram,
    ],
)
def test_plots_of_one_network_refuse_several(draw):
    several = Model([Dense(3)], "softmax_cross_entropy", seed=(0, 1), backend=make_backend("numpy")).build((2,))
    with pytest.raises(ValueError, match="one seed"):
        draw(several)


def test_a_slice_of_the_loss_has_the_model_in_the_middle(model):
    model.fit(X, Y, epochs=20, verbose=0)
    before = model.state_dict()
    with pytest.raises(ValueError, match="at least two points in each direction"):
        plotting.loss_slice(model, X, Y, points=1)
    ax = plotting.loss_slice(model, X, Y, points=5)

    levels = ax.collections[0].levels
    assert levels[0] <= model.evaluate(X, Y)[0] <= levels[-1]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_diagram_has_a_line_for_each_weight(model):
    ax = plotting.network_diagram(model)

    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(lines) == 2 * 4 + 4 * 3
    first = np.sign(model.parameters[0]["weight"][0, 0])
    assert lines[0].get_color() == (BLUE if first >= 0 else VERMILLION)
    assert [text.get_text() for text in ax.texts] == ["input\n2", "Dense\n4\nTanh", "Dense\n3"]
    wide = plotting.network_diagram(Model([Dense(100)], "mse", backend=make_backend("numpy")).build((3,)), units=8)
    assert len([line for line in wide.lines if len(line.get_xdata()) == 2]) == 3 * 6
    convolution = Model([Conv2D(2, 3), Flatten()], "mse", backend=make_backend("numpy")).build((5, 5, 1))
    with pytest.raises(ValueError, match="Dense layers"):
        plotting.network_diagram(convolution)
    with pytest.raises(RuntimeError, match="no parameters yet"):
        plotting.network_diagram(Model([Dense(3)], "mse", backend=make_backend("numpy")))


def test_an_animation_has_a_frame_before_training_and_after_each_epoch(model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    animation = plotting.Animation(lambda model: plotting.decision_regions(model, X, Y, points=10), every=2)
    with pytest.raises(ValueError, match="no frames yet"):
        animation.save(tmp_path / "run.gif")
    model.fit(X, Y, epochs=4, callbacks=[animation], verbose=0)

    assert len(animation.frames) == 3
    with pytest.raises(ValueError, match=r"must end in \.gif. Received: path='.*run.mp4'"):
        animation.save(tmp_path / "run.mp4")
    assert image.open(io.BytesIO(animation.frames[0])).format == "PNG"
    animation.save(tmp_path / "run.gif")
    with image.open(tmp_path / "run.gif") as gif:
        assert (gif.format, gif.n_frames) == ("GIF", 3)
    html = animation._repr_html_()
    assert html.count("<img") == 3
    assert 'max="2"' in html
    assert plt.get_fignums() == []


def test_an_animation_names_what_draw_returned(model):
    with pytest.raises(TypeError, match="Received: None"):
        model.fit(X, Y, callbacks=[plotting.Animation(lambda model: None)], verbose=0)
