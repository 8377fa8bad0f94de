"""Plots: the correct objects, labels and colors, drawn without a screen."""

import itertools
import sys

import numpy as np
import pytest

import xpnet
from tests.scripts import run
from xpnet import Model, plotting
from xpnet.history import History
from xpnet.inspection import layer_statistics
from xpnet.layers import Dense, Dropout, ReLU
from xpnet.metrics import Recall
from xpnet.plotting.figures import BLUE, GRAY, GREEN, VERMILLION

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("agg")


@pytest.fixture(autouse=True)
def close_figures():
    settings = dict(plt.rcParams)
    yield
    plt.close("all")
    assert dict(plt.rcParams) == settings


@pytest.fixture
def history():
    return History(
        {"loss": [2.0, 1.0, 0.5], "val_loss": [2.5, 1.5, 1.0], "accuracy": [0.5, 0.75, 0.875]},
        [3, 4, 5],
        {"step": [9, 19, 29, 39], "loss": [3.0, 1.0, 2.0, 0.0], "val_loss": [4.0, 3.0, 2.0, 1.0]},
    )


@pytest.fixture
def images(rng):
    return rng.integers(256, size=(7, 4, 3), dtype=np.uint8)


def curves(ax):
    """Return the drawn lines as (x, y), without the lines of the legend."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines if len(line.get_xdata())]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ---------------------------------------------------------------------- learning curves


def test_learning_curves_show_training_and_validation_by_epoch(history):
    ax = plotting.learning_curves(history)

    assert curves(ax) == [([4, 5, 6], [2.0, 1.0, 0.5]), ([4, 5, 6], [2.5, 1.5, 1.0])]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Loss")
    assert legend(ax) == ["training", "validation"]
    assert [line.get_color() for line in ax.lines[:2]] == [BLUE, VERMILLION]


def test_learning_curves_by_iteration_stand_at_their_steps(history):
    ax = plotting.learning_curves(history, per="iteration", labels=("mini-batch", "test set"))

    assert curves(ax)[0] == ([10, 20, 30, 40], [3.0, 1.0, 2.0, 0.0])
    assert ax.get_xlabel() == "Iteration"
    assert legend(ax) == ["mini-batch", "test set"]


def test_learning_curves_take_the_dict_of_a_history(history):
    assert curves(plotting.learning_curves(history.history))[0] == ([1, 2, 3], [2.0, 1.0, 0.5])


def test_learning_curves_without_validation_are_one(history):
    ax = plotting.learning_curves(history, "accuracy")
    ax.figure.canvas.draw()

    assert legend(ax) == ["training"]
    assert all(label.get_text().endswith("%") for label in ax.get_yticklabels())


def test_learning_curves_are_smoothed_over_their_points(history):
    ax = plotting.learning_curves(history, per="iteration", smooth=2)

    points, means, _ = curves(ax)
    assert points == ([10, 20, 30, 40], [3.0, 1.0, 2.0, 0.0])
    assert means == ([15, 25, 35], [2.0, 1.5, 1.0])


def test_several_histories_have_a_color_each(history):
    ax = plotting.learning_curves({"He": history, "LeCun": history.history})

    assert legend(ax) == ["He", "LeCun", "training", "validation"]
    assert [line.get_color() for line in ax.lines[:4]] == [BLUE] * 2 + [VERMILLION] * 2


def test_curves_that_coincide_show_by_their_markers():
    same = {"loss": list(np.linspace(2, 1, 40)), "val_loss": list(np.linspace(2, 1, 40))}
    ax = plotting.learning_curves({"He": same, "Xavier": same})

    _, he, _, xavier = (line for line in ax.lines if len(line.get_xdata()))
    assert (he.get_marker(), xavier.get_marker()) == ("o", "s")
    assert (he.get_markevery(), xavier.get_markevery()) == ((0, 5), (2, 5))
    assert [line.get_marker() for line in ax.get_legend().get_lines()] == ["o", "s", "None", "None"]


def test_a_short_curve_has_all_its_markers():
    ax = plotting.learning_curves({name: {"loss": [1.0]} for name in "abc"})

    assert [line.get_markevery() for line in ax.lines if len(line.get_xdata())] == [(0, 1)] * 3


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([2.0, 1.0, 0.5, 0.3], "linear"),
        ([2.3, 0.3, 0.1, 0.05, 0.05], "linear"),
        ([2.3, 1.0, *[0.2] * 20, 4.1, *[0.2] * 10], "log"),
        ([2.0, 5e5, 1.0, 0.5], "log"),
        ([1.0, 1e-3, 1e-4, 1e-5], "log"),
        ([0.9, -4e4, 0.8, 0.7], "symlog"),
        ([500.0, 0.0, 0.0, 0.0], "linear"),
        ([1.0, float("inf"), float("nan"), 0.5], "linear"),
    ],
)
def test_one_spike_does_not_flatten_the_rest(losses, scale):
    ax = plotting.learning_curves({"loss": losses})
    ax.figure.canvas.draw()

    assert ax.get_yscale() == scale


def test_a_spike_of_one_history_does_not_flatten_another():
    ax = plotting.learning_curves({"large": {"loss": [1e6] * 5}, "small": {"loss": [1.0] * 3}})

    assert ax.get_yscale() == "log"


def test_networks_trained_at_once_are_a_mean_and_a_band_of_standard_errors():
    ax = plotting.learning_curves({"loss": [[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]]})

    assert curves(ax) == [([1, 2], [2.0, 1.0])]
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.0)  # three networks with mean 1 and standard deviation sqrt 3
    assert corners[:, 1].max() == pytest.approx(2 + 1 / np.sqrt(3))


def test_one_network_on_the_leading_axis_has_no_band():
    assert not plotting.learning_curves({"loss": [[2.0], [1.0]]}).collections


def test_learning_curves_of_a_real_fit(rng):
    x, y = rng.normal(size=(40, 3)), rng.integers(2, size=40)
    model = Model([Dense(2)], "softmax_cross_entropy", metrics=["accuracy"], seed=[0, 1])
    history = model.fit(x, y, batch_size=10, epochs=2, verbose=0, validation_data=(x, y), record_every=2)

    assert [x for x, _ in curves(plotting.learning_curves(history, "accuracy"))] == [[1, 2], [1, 2]]
    assert curves(plotting.learning_curves(history, per="iteration"))[0][0] == [2, 4, 6, 8]


def test_a_list_of_values_is_no_curve(rng):
    x, y = rng.normal(size=(40, 3)), rng.integers(2, size=40)
    for seed in (0, (0, 1)):
        model = Model([Dense(2)], "softmax_cross_entropy", metrics=[Recall(None), "confusion_matrix"], seed=seed)
        history = model.fit(x, y, epochs=2, verbose=0)
        for name in ("recall", "confusion_matrix"):
            with pytest.raises(
                ValueError, match=f"A curve needs one number at each point, but each value of {name} is a list"
            ):
                plotting.learning_curves(history, name)
    plotting.learning_curves({"first": [value[0] for value in history.history["recall"]]}, "first")


def test_the_name_of_validation_values_is_refused(history):
    with pytest.raises(ValueError, match=r'a name without "val_", because both curves are drawn. Write .loss'):
        plotting.learning_curves(history, "val_loss")


def test_validation_values_stand_at_the_epochs_that_were_validated():
    history = History({"loss": [4.0, 3.0, 2.0, 1.0], "val_loss": [3.5, 1.5]}, [0, 1, 2, 3], validation_epoch=[1, 3])

    ax = plotting.learning_curves(history)

    assert curves(ax) == [([1, 2, 3, 4], [4, 3, 2, 1]), ([2, 4], [3.5, 1.5])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "recall"}, r"holds loss, accuracy. .*metrics=.*metric='recall'"),
        ({"metric": "val_loss"}, r"metric='val_loss'"),
        ({"metric": "accuracy", "per": "iteration"}, r"record_every"),
        ({"per": "step"}, r'"epoch", "iteration". Received: per='),
        ({"smooth": 4}, r"smooth must be an integer from 1 .* 3. Received: smooth=4"),
        ({"smooth": 0}, r"smooth=0"),
        ({"history": {str(i): History() for i in range(8)}}, r"at most 7 histories.*Received: 8"),
        ({"history": {"loss": [1.0, 2.0], "val_loss": [1.0]}}, r"Plot the History.*2 values of 'loss' and 1"),
        ({"history": {}}, r"holds nothing"),
    ],
)
def test_learning_curves_refuse_what_they_cannot_draw(history, arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.learning_curves(**{"history": history} | arguments)
    assert not plt.get_fignums()


def test_learning_curves_refuse_what_is_no_history():
    with pytest.raises(TypeError, match=r"the History that fit returns.*Received: \[1"):
        plotting.learning_curves([1.0, 2.0])


# ---------------------------------------------------------------------- images


def test_weight_images_share_one_scale_around_zero(rng):
    weights = rng.normal(size=(12, 7))

    figure = plotting.weight_images(weights, shape=(4, 3), titles=range(7))

    *panels, bar = [ax for ax in figure.axes if ax.images or ax.get_ylabel()]
    assert [ax.get_title() for ax in panels] == list("0123456")
    assert {ax.images[0].get_clim() for ax in panels} == {(-np.abs(weights).max(), np.abs(weights).max())}
    np.testing.assert_array_equal(panels[5].images[0].get_array(), weights[:, 5].reshape(4, 3))
    assert bar.get_ylabel() == "Weight"


def test_weight_images_can_be_all_zero():
    plotting.weight_images(np.zeros((4, 1)), shape=(2, 2)).canvas.draw()


@pytest.mark.parametrize("shape", [(12,), (3, 12, 2), (11, 2), (12, 0)])
def test_weight_images_refuse_other_shapes(shape):
    with pytest.raises(ValueError, match=r"shape \(12, units\).*weights\[k\]. Received: .*shape \("):
        plotting.weight_images(np.ones(shape), shape=(4, 3))


def test_image_grid_is_in_rows_with_titles_in_their_colors(images):
    figure = plotting.image_grid(images, titles=range(7), columns=3, title_colors=["red"] * 6 + ["blue"])

    assert len(figure.axes) == 9
    assert [ax.get_title() for ax in figure.axes] == [*"0123456", "", ""]
    assert figure.axes[6].title.get_color() == "blue"
    assert {ax.images[0].get_clim() for ax in figure.axes[:7]} == {(images.min(), images.max())}


@pytest.mark.parametrize("shape", [(2, 4, 3, 1), (2, 4, 3, 3), (1, 4, 3)])
def test_image_grid_takes_channels(shape):
    assert len(plotting.image_grid(np.zeros(shape, dtype=np.uint8)).axes) == shape[0]


@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (2, 4, 3, 2)])
def test_image_grid_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(n, height, width\).*reshape\(-1, 28, 28\). Received: .*shape \("):
        plotting.image_grid(np.zeros(shape))


@pytest.mark.parametrize("name", ["titles", "title_colors"])
def test_image_grid_wants_one_title_and_color_each(images, name):
    with pytest.raises(ValueError, match=f"{name} must hold 7 entries, one for each. Received: 2"):
        plotting.image_grid(images, **{name: ["red", "blue"]})


def test_titles_do_not_overlap(images):
    figure = plotting.image_grid(images, titles=["Ankle boot, not Sneaker"] * 7)
    figure.canvas.draw()

    boxes = [ax.title.get_window_extent() for ax in figure.axes[:5]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


# ---------------------------------------------------------------------- predictions


@pytest.mark.parametrize(
    ("label", "title", "colors"),
    [
        (1, "CORRECT: b", [GRAY, GREEN, GRAY]),
        (2, "INCORRECT: b, not c", [GRAY, VERMILLION, GREEN]),
        (None, "Prediction: b", [GRAY, BLUE, GRAY]),
    ],
)
def test_prediction_bars_say_whether_the_label_is_right(images, label, title, colors):
    figure = plotting.prediction_bars(images[0], np.array([0.1, 0.7, 0.2]), label, class_names="abc")

    picture, bars = figure.axes
    assert figure.get_suptitle() == title
    assert [bar.get_width() for bar in bars.patches] == [0.1, 0.7, 0.2]
    assert [plt.matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in bars.patches] == colors
    np.testing.assert_array_equal(picture.images[0].get_array(), images[0])
    assert bars.get_xlabel() == "Probability"


@pytest.mark.parametrize(
    ("probabilities", "label", "message"),
    [
        ([3.0, -1.0], 0, r"\[0, 1\].*predict"),
        ([np.nan, 0.5], 0, r"\[0, 1\]"),
        ([[0.5, 0.5]], 0, r"one row of predict"),
        ([0.7], 0, r"\(1 - p, p\)"),
        ([0.7, 0.3], 2, r"label must be a class from 0 to 1.*label=2"),
        ([0.7, 0.3], -1, r"label=-1"),
    ],
)
def test_prediction_bars_refuse_what_is_no_probability_or_class(images, probabilities, label, message):
    with pytest.raises(ValueError, match=message):
        plotting.prediction_bars(images[0], np.array(probabilities), label)


def test_confusion_matrix_counts_rows_of_true_labels():
    pytest.importorskip("sklearn")

    ax = plotting.confusion_matrix(np.array([0, 0, 0, 1]), np.array([0, 2, 2, 1]), class_names=["no", "yes", "perhaps"])

    assert [text.get_text() for text in ax.texts] == ["1", "0", "2", "0", "1", "0", "0", "0", "0"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Predicted label", "True label")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["no", "yes", "perhaps"]


def test_confusion_matrix_names_the_labels_that_occur():
    pytest.importorskip("sklearn")

    ax = plotting.confusion_matrix(np.array([3, 7]), np.array([3, 3]))

    assert [label.get_text() for label in ax.get_yticklabels()] == ["3", "7"]


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([0, 1], [0, 1, 1], r"shapes \(2,\) and \(3,\)"),
        ([[0, 1]], [[0, 1]], r"argmax"),
        ([], [], r"shape \(n,\)"),
        ([0, 2], [0, 0], r"With 2 class_names, the labels must be 0 to 1.*Received: labels \[0 2\]"),
    ],
)
def test_confusion_matrix_refuses_other_labels(y_true, y_pred, message):
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=message):
        plotting.confusion_matrix(np.array(y_true), np.array(y_pred), class_names=["a", "b"])


# ---------------------------------------------------------------------- layers


@pytest.fixture
def statistics():
    def numbers(size):
        return {"mean": 0.0, "std": size, "zeros": 0.25, "quantiles": [-size, -size / 2, 0.0, size / 2, size]}

    return [{"layer": f"{i}.Dense", "activation": numbers(1.0), "gradient": numbers(10.0**-i)} for i in range(4)]


def test_layer_statistics_are_drawn_by_layer_from_the_top(statistics):
    figure = plotting.layer_statistics(statistics)

    activations, gradients = figure.axes
    assert [label.get_text() for label in activations.get_yticklabels()] == ["0.Dense", "1.Dense", "2.Dense", "3.Dense"]
    assert activations.yaxis_inverted()
    assert (activations.get_xlabel(), gradients.get_xlabel()) == ("Activation", "Gradient of the loss")
    assert [text.get_text() for text in gradients.texts] == ["25%"] * 4 + ["zeros"]
    assert (activations.get_xscale(), gradients.get_xscale()) == ("linear", "symlog")


def test_layer_statistics_of_a_dead_network_can_be_drawn(statistics):
    for layer in statistics:
        layer["gradient"] = {"mean": 0.0, "std": 0.0, "zeros": 1.0, "quantiles": [0.0] * 5}

    plotting.layer_statistics(statistics).canvas.draw()


def test_layer_statistics_are_those_of_the_training_pass(xp):
    x = np.array([[1.0, -2.0], [3.0, 4.0]], dtype=np.float32)
    model = Model([Dense(2), ReLU()], "mean_squared_error", backend=xp).build((2,))
    model.state["params"] = ({"weight": xp.asarray(np.eye(2)), "bias": xp.asarray(np.zeros((1, 2)))}, {})

    dense, relu = layer_statistics(model, x, np.ones((2, 2)))

    assert (dense["layer"], relu["layer"]) == ("0.Dense", "1.ReLU")
    assert dense["activation"]["quantiles"] == pytest.approx(np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95]))
    assert relu["activation"]["mean"] == pytest.approx(2.0)  # the mean of 1, 0, 3, 4
    assert relu["activation"]["std"] == pytest.approx(np.sqrt(2.5))
    assert relu["activation"]["zeros"] == 0.25
    assert relu["gradient"]["mean"] == pytest.approx(0.5)  # 2 (z - y) / 4 = 0, -0.5, 1, 1.5
    assert dense["gradient"]["mean"] == pytest.approx(0.625)  # the same, but 0 where ReLU is 0
    assert dense["gradient"]["zeros"] == 0.5


def test_layer_statistics_change_nothing(rng):
    x, y = rng.normal(size=(8, 3)), rng.integers(2, size=8)
    model = Model([Dense(5), Dropout(0.5), Dense(2)], "softmax_cross_entropy", seed=[0, 1]).build((3,))
    before = model.backend.copy(model.state)

    first, second = layer_statistics(model, x, y), layer_statistics(model, x, y)

    assert first == second
    assert 0 < first[1]["activation"]["zeros"] < 1
    assert xpnet.tree.leaves(before)
    for a, b in zip(xpnet.tree.leaves(before), xpnet.tree.leaves(model.state), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------- all of them


def test_every_function_draws_where_it_is_told(history, images, statistics):
    pytest.importorskip("sklearn")
    page = plt.figure(layout="constrained")
    left, right = page.subfigures(1, 2)
    ax = left.subplots()

    assert plotting.learning_curves(history, ax=ax) is ax
    assert plotting.confusion_matrix([0, 1], [1, 1], ax=ax) is ax
    assert plotting.weight_images(np.ones((4, 2)), (2, 2), figure=right) is right
    assert plotting.image_grid(images, figure=right) is right
    assert plotting.prediction_bars(images[0], [0.5, 0.5], figure=right) is right
    assert plotting.layer_statistics(statistics, figure=right) is right
    assert plt.get_fignums() == [page.number]


def test_text_can_be_read_in_a_dark_style(history, statistics):
    with plt.style.context("dark_background"):
        bars = plotting.prediction_bars(np.zeros((4, 4)), [0.5, 0.5])
        curves = plotting.learning_curves({"a": history})
        medians = plotting.layer_statistics(statistics).axes[0].lines[0]

    assert bars.get_facecolor() == (0, 0, 0, 1)
    assert bars._suptitle.get_color() == "white"
    assert [line.get_color() for line in curves.get_legend().get_lines()[1:]] == ["white", "white"]
    assert medians.get_color() == "white"


def test_arrays_of_any_backend_are_drawn(xp, rng):
    pytest.importorskip("sklearn")
    images, labels = xp.asarray(rng.random((2, 2, 2))), xp.asarray(np.array([0, 1]))

    plotting.image_grid(images, titles=xpnet.to_numpy(labels))
    plotting.weight_images(images[0, ...], (2, 1))
    plotting.prediction_bars(images[0, ...], xp.asarray(np.array([0.25, 0.75])), 1)
    plotting.confusion_matrix(labels, labels)


def test_a_figure_is_saved_without_a_screen_or_setting(tmp_path):
    code = (
        "from xpnet import plotting\nimport matplotlib\n"
        "plotting.learning_curves({'loss': [2.0, 1.0]}).figure.savefig('curves.png')\n"
        "assert matplotlib.get_backend().lower() == 'agg'"
    )

    run("-W", "error", "-c", code, cwd=tmp_path)

    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)

    with pytest.raises(ImportError, match=r"pip install -e .*\[plot\]"):
        plotting.learning_curves({"loss": [1.0]})


def test_importing_plotting_imports_no_matplotlib():
    code = "import sys, xpnet.plotting; assert not {'matplotlib', 'sklearn'} & set(sys.modules)"

    run("-c", code)


def test_a_dict_says_whether_it_counts_epochs_or_iterations():
    """Host-side, so no backend."""
    epochs, iterations = {"loss": [2.0, 1.0]}, {"step": [0, 5], "loss": [2.0, 1.0]}
    for table, per in ((epochs, "iteration"), (iterations, "epoch")):
        with pytest.raises(ValueError, match=rf"Received: per='{per}'"):
            plotting.learning_curves(table, per=per)


def test_a_long_legend_stands_beside_the_curves():
    ax = plotting.learning_curves({f"run {i}": {"loss": [2.0, 1.0]} for i in range(6)})
    ax.figure.canvas.draw()

    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_bars_of_many_classes_and_long_names_have_room():
    names = [f"a class with a name, {i}" for i in range(26)]
    figure = plotting.prediction_bars(np.zeros((4, 4)), np.full(26, 1 / 26), 3, class_names=names)
    figure.canvas.draw()
    labels = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    title = figure._suptitle.get_window_extent()

    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(labels))
    assert 0 <= title.x0 <= title.x1 <= figure.bbox.x1


def test_colors_beyond_0_and_1_are_scaled():
    figure = plotting.image_grid(np.linspace(0, 255, 2 * 3 * 3 * 3).reshape(2, 3, 3, 3))
    shown = np.concatenate([image.get_array().ravel() for ax in figure.axes for image in ax.images])

    assert (shown.min(), shown.max()) == (0, 1)


# ---------------------------------------------------------------------- names of classes


def test_class_names_may_be_a_dict_from_label_to_name(images):
    names = {1: "dog", 0: "cat"}
    ax = plotting.confusion_matrix(np.array([0, 0, 1]), np.array([0, 0, 0]), class_names=names)
    figure = plotting.prediction_bars(images[0], [0.75, 0.25], class_names=names)

    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["cat", "dog"]


@pytest.mark.parametrize("names", [{"a": 0, "b": 1}, {1: "a", 2: "b"}, {"a", "b"}])
def test_class_names_without_an_order_are_refused(names):
    with pytest.raises(ValueError, match="class_names"):
        plotting.confusion_matrix(np.array([0, 1]), np.array([0, 1]), class_names=names)


@pytest.mark.parametrize("labels", [[0, 1, 1], ["a", "b", "b"]])
def test_labels_as_objects_are_what_they_hold(labels):
    ax = plotting.confusion_matrix(np.array(labels, dtype=object), np.array(labels))

    assert [label.get_text() for label in ax.get_xticklabels()] == [str(label) for label in labels[:2]]


@pytest.mark.parametrize("labels", [[0.0, np.nan, 1.0], [None, 1, 0]])
def test_a_missing_label_is_called_so(labels):
    with pytest.raises(ValueError, match=r"y_true must hold a label for every sample. Remove samples without a label"):
        plotting.confusion_matrix(np.array(labels), np.array([0, 1, 1]))


def test_text_and_numbers_are_not_compared():
    with pytest.raises(ValueError, match="must both be numbers or both be text"):
        plotting.confusion_matrix(np.array(["0", "1"]), np.array([0, 1]))
