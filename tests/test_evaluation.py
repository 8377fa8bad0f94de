"""Prediction and evaluation: what they return, in which shape, and that results share no memory with the model or the data."""

import copy
import pickle

import numpy as np
import pytest

from tests import test_model
from tests.test_model import make_model, writable
from xpnet import Model
from xpnet.backend import to_numpy
from xpnet.layers import (
    Dense,
    Dropout,
    Flatten,
    Identity,
    ReLU,
    Reshape,
    Softmax,
    TimeDistributed,
)
from xpnet.layers.base import Layer
from xpnet.losses import (
    BinaryCrossEntropy,
    GaussianNLL,
    MeanSquaredError,
    PerPosition,
    Poisson,
    SoftmaxCrossEntropy,
)

N = 6
X = np.random.default_rng(0).normal(size=(N, 2))
STEPS = np.random.default_rng(1).normal(size=(N, 4, 2))
LABELS = np.arange(N) % 3
BITS = np.arange(N) % 2


def trained(xp, loss, units, y, x=X, **settings):
    layers = [TimeDistributed(Dense(units))] if x.ndim == 3 else [Dense(units)]
    model = Model(layers, loss, backend=writable(xp), **settings)
    model.fit(x, y, verbose=0)
    return model


@pytest.mark.parametrize(
    ("loss", "units", "y", "shape"),
    [
        ("mean_squared_error", 1, X[:, 0], (N,)),
        ("mean_squared_error", 1, X[:, :1], (N, 1)),
        ("mean_squared_error", 2, X, (N, 2)),
        ("poisson", 1, BITS, (N,)),
        ("gaussian_nll", 2, X[:, 0], (N,)),
        ("gaussian_nll", 2, X[:, :1], (N, 1)),
        ("gaussian_nll", 4, X, (N, 2)),
        ("binary_cross_entropy", 1, BITS, (N,)),
        ("binary_cross_entropy", 1, BITS[:, None], (N, 1)),
        ("binary_cross_entropy", 2, np.eye(2)[BITS], (N, 2)),
        ("softmax_cross_entropy", 3, LABELS, (N, 3)),
        ("softmax_cross_entropy", 3, LABELS[:, None], (N, 3)),
        ("softmax_cross_entropy", 3, np.eye(3)[LABELS], (N, 3)),
    ],
)
def test_predict_has_the_shape_of_the_targets_or_a_column_for_each_class(xp, loss, units, y, shape):
    model = trained(xp, loss, units, y)

    assert tuple(model.predict(X).shape) == shape
    assert tuple(model.predict(X, batch_size=4).shape) == shape
    assert tuple(model.predict_logits(X).shape) == (N, units)


@pytest.mark.parametrize(
    ("loss", "units", "y", "shape"),
    [
        ("softmax_cross_entropy", 3, LABELS, (N,)),
        ("softmax_cross_entropy", 3, LABELS[:, None], (N, 1)),
        ("softmax_cross_entropy", 3, np.eye(3)[LABELS], (N,)),
        ("binary_cross_entropy", 1, BITS, (N,)),
        ("binary_cross_entropy", 1, BITS[:, None], (N, 1)),
        ("binary_cross_entropy", 2, np.eye(2)[BITS], (N, 2)),
    ],
)
def test_predict_classes_has_the_shape_of_label_targets(xp, loss, units, y, shape):
    model = trained(xp, loss, units, y)

    assert tuple(model.predict_classes(X).shape) == shape


@pytest.mark.parametrize(
    ("loss", "units", "y", "values", "classes"),
    [
        (SoftmaxCrossEntropy(), 3, np.zeros((N, 4), int), (N, 4, 3), (N, 4)),
        (SoftmaxCrossEntropy(), 3, np.zeros((N, 4, 1), int), (N, 4, 3), (N, 4, 1)),
        (BinaryCrossEntropy(), 1, np.zeros((N, 4)), (N, 4), (N, 4)),
        (BinaryCrossEntropy(), 1, np.zeros((N, 4, 1)), (N, 4, 1), (N, 4, 1)),
        (MeanSquaredError(), 1, STEPS[..., 0], (N, 4), None),
        (MeanSquaredError(), 1, STEPS[..., :1], (N, 4, 1), None),
        (GaussianNLL(), 2, STEPS[..., 0], (N, 4), None),
    ],
)
def test_positions_keep_the_shape_of_their_targets(xp, loss, units, y, values, classes):
    model = trained(xp, PerPosition(loss), units, y, x=STEPS)

    assert tuple(model.predict(STEPS).shape) == values
    if classes:
        assert tuple(model.predict_classes(STEPS).shape) == classes


def test_several_seeds_put_their_axis_in_front(xp):
    regression = trained(xp, "mean_squared_error", 1, X[:, 0], seed=(1, 2))
    classifier = trained(xp, "softmax_cross_entropy", 3, LABELS, seed=(1, 2))
    column = trained(xp, "softmax_cross_entropy", 3, LABELS[:, None], seed=(1, 2))

    assert tuple(regression.predict(X).shape) == (2, N)
    assert tuple(classifier.predict(X).shape) == (2, N, 3)
    assert tuple(classifier.predict_classes(X).shape) == (2, N)
    assert tuple(column.predict_classes(X).shape) == (2, N, 1)


def test_predict_applies_the_activation_of_the_loss(xp):
    def answers(loss, units, y):
        model = trained(xp, loss, units, y)
        return to_numpy(model.predict(X)), to_numpy(model.predict_logits(X))

    p, z = answers("softmax_cross_entropy", 3, LABELS)
    np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-5)
    p, z = answers("binary_cross_entropy", 1, BITS)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-z[:, 0])), rtol=1e-5)
    p, z = answers(Poisson(), 1, BITS)
    np.testing.assert_allclose(p, np.exp(z[:, 0]), rtol=1e-5)
    p, z = answers(GaussianNLL(), 2, X[:, 0])
    np.testing.assert_array_equal(p, z[:, 0])  # the mean


def test_classes_are_the_largest_probability(xp):
    model = trained(xp, "softmax_cross_entropy", 3, LABELS)
    binary = trained(xp, "binary_cross_entropy", 1, BITS)

    np.testing.assert_array_equal(to_numpy(model.predict_classes(X)), to_numpy(model.predict(X)).argmax(axis=-1))
    np.testing.assert_array_equal(to_numpy(binary.predict_classes(X)), to_numpy(binary.predict(X)) > 0.5)


def test_a_loss_of_values_has_no_classes(xp):
    model = trained(xp, "mean_squared_error", 1, X[:, 0])

    with pytest.raises(ValueError, match=r"predict_classes needs a loss of classes.*MeanSquaredError\(\)"):
        model.predict_classes(X)


def test_the_first_evaluation_tells_an_untrained_model_the_form_of_its_targets(xp):
    model = Model([Dense(1)], "mean_squared_error", backend=writable(xp)).build((2,))

    assert tuple(model.predict(X).shape) == (N, 1)
    model.evaluate(X, X[:, 0])
    assert tuple(model.predict(X).shape) == (N,)
    model.fit(X, X[:, :1], verbose=0)
    model.evaluate(X, X[:, 0])
    assert tuple(model.predict(X).shape) == (N, 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_knows_the_form_of_the_targets(copied):
    """Pickling does not depend on the library, so NumPy is enough."""
    model = Model([Dense(1)], "mean_squared_error", backend="numpy")
    model.fit(X, X[:, 0], verbose=0)

    assert copied(model).predict(X).shape == (N,)


class Constant(Layer):
    """Returns its parameter as output."""

    def init(self, rng, input_shape):
        return {"value": np.ones((1, *input_shape))}, input_shape

    def forward(self, params, x):
        y = np.broadcast_to(params["value"], x.shape)
        return y, lambda dy, need_dx=True: (0 * dy, {"value": dy.sum(axis=0, keepdims=True)})


@pytest.mark.parametrize("method", ["predict", "predict_logits"])
@pytest.mark.parametrize("layers", [[Flatten()], [Identity()], [Dropout(0.5)], [Reshape((2,))], []])
def test_predictions_are_no_view_of_the_samples(method, layers):
    """A NumPy result could be a writable view. In libraries without item assignment, nothing can be written."""
    x = X.astype(np.float32)
    answer = getattr(Model(layers, "mean_squared_error", backend="numpy").build((2,)), method)(x)
    answer[:] = 9

    np.testing.assert_array_equal(x, X.astype(np.float32))


@pytest.mark.parametrize("method", ["predict", "predict_classes", "predict_logits"])
def test_predictions_are_no_view_of_the_parameters(method):
    """A NumPy result could be a writable view. In libraries without item assignment, nothing can be written."""
    loss = "mean_squared_error" if method == "predict" else "softmax_cross_entropy"
    model = Model([Constant()], loss, backend="numpy").build((2,))
    getattr(model, method)(X)[...] = 9

    np.testing.assert_array_equal(model.parameters[0]["value"], 1)


def test_probabilities_of_a_network_that_makes_them_are_its_own_output(xp):
    model = Model([Dense(3), Softmax()], "categorical_cross_entropy", backend=writable(xp)).build((2,))

    np.testing.assert_array_equal(to_numpy(model.predict(X)), to_numpy(model.predict_logits(X)))


def test_batches_of_inference_make_a_whole(xp):
    """This includes several networks, whose axis comes before the axis of samples."""
    x, y, model = (
        test_model.X,
        test_model.Y,
        make_model(xp, seed=(0, 1), layers=[Dense(8), ReLU(), Dense(3)]).build((2,)),
    )

    np.testing.assert_allclose(model.evaluate(x, y, batch_size=50), model.evaluate(x, y), rtol=1e-5)
    z = to_numpy(model.predict_logits(x, batch_size=50))
    np.testing.assert_allclose(z, to_numpy(model.predict_logits(x)), rtol=1e-5, atol=1e-6)
    assert z.shape == (2, 120, 3)
