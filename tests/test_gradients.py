"""The check of gradients, and saliency."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.containers import X, Y, gate, model
from tests.gradients import check_gradient
from tests.test_graph_safety import IMAGE, NETWORKS
from tests.test_model import make_model, spirals, writable
from xpnet import Model, check_gradients, saliency
from xpnet.backend import make_backend, namespace, to_numpy
from xpnet.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianNoise,
    Layer,
    RandomCrop,
    ReLU,
    Residual,
    Tanh,
)

SAMPLES, LABELS = (array[:10] for array in spirals())


@dataclass(frozen=True)
class Cube(Layer):
    """y = x³, with a derivative that is wrong by a factor for `slope` other than 3"""

    slope: float = 3.0

    def forward(self, params, x):
        return x**3, lambda dy, need_dx=True: (self.slope * x**2 * dy, {})


@dataclass(frozen=True)
class Shift(Layer):
    """y = x + b, with a bias that sums over all samples but the first"""

    def init(self, rng, input_shape):
        return {"bias": np.zeros((1, input_shape[-1]))}, input_shape

    def forward(self, params, x):
        def backward(dy, need_dx=True):
            return dy, {"bias": namespace(dy).sum(dy[1:, :], axis=0, keepdims=True)}

        return x + params["bias"], backward


def test_correct_layers_pass(xp):
    trained = make_model(
        xp, layers=[Dense(8), ReLU(), Dropout(0.3), BatchNormalization(), Residual(Dense(8)), Dense(3)]
    )
    trained.build((2,))
    before = trained.state_dict()

    checked = check_gradients(trained, SAMPLES, LABELS)

    assert checked
    assert [g.name for g in checked.gradients][:3] == ["x", "0.bias", "0.weight"]
    assert all(abs(g.analytic - g.numerical) < 1e-5 for g in checked.gradients)
    for name, value in trained.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    "name", ["activations", "image", "long sequence", "transformer", "shared normalization", "nested"]
)
def test_networks_of_xpnet_pass(name):
    """Only on NumPy, because the layers' own tests compare all backends."""
    shape, layers = NETWORKS[name]
    rng = np.random.default_rng(0)
    trained = Model(layers, "mean_squared_error", backend=make_backend("numpy")).build(shape)

    checked = check_gradients(trained, rng.normal(size=(3, *shape)), rng.normal(size=(3, 3)))

    assert checked, checked


def test_a_wrong_derivative_fails_below_the_layer(xp):
    right = check_gradients(model(xp, [Dense(3), Cube(), Dense(3)]), X, Y)
    wrong = check_gradients(model(xp, [Dense(3), Cube(2.9), Dense(3)]), X, Y)

    assert right.passed
    assert {g.name: g.passed for g in wrong.gradients} == {
        "x": False, "0.bias": False, "0.weight": False, "2.bias": True, "2.weight": True,
    }  # fmt: skip
    bad = wrong.gradients[2]
    assert bad.analytic == pytest.approx(bad.numerical * 2.9 / 3, rel=1e-6)
    assert "FAIL" in str(wrong)
    assert "FAIL" in wrong._repr_html_()


def test_a_wrong_parameter_gradient_fails_alone(xp):
    wrong = check_gradients(model(xp, [Dense(3), Shift(), Dense(3)]), X, Y)

    assert [g.name for g in wrong.gradients if not g.passed] == ["1.bias"]


def test_both_derivatives_at_a_kink_are_correct(xp):
    """The inputs of the ReLU are exactly 0, where its derivative is 0 from the left and 1 from the right."""
    still = model(xp, [Dense(3, weight_initializer="zeros"), ReLU(), Dense(3)])

    checked = check_gradients(still, X[:1], Y[:1])

    assert checked
    assert any(g.analytic != pytest.approx(g.numerical, abs=1e-3) for g in checked.gradients)


def test_several_networks(xp):
    assert check_gradients(Model([Dense(3)], "mean_squared_error", seed=(0, 1), backend=writable(xp)).build((4,)), X, Y)


def test_compares_100_entries_of_a_large_array():
    """Only on NumPy, because the choice does not depend on the backend."""
    large = check_gradients(model(make_backend("numpy"), [Dense(40), Dense(3)]), X, Y)

    assert {g.name: (g.entries, g.size) for g in large.gradients}["0.weight"] == (100, 160)


def test_saliency_is_the_gradient_of_an_output_at_inference(xp64):
    layers = [Dropout(0.5), GaussianNoise(1.0), Dense(6), BatchNormalization(), Tanh(), Dense(3)]
    trained = Model(layers, "softmax_cross_entropy", "adam", backend=writable(xp64))
    x, y = spirals()
    trained.fit(x, y, epochs=2, verbose=0)

    dx = saliency(trained, x[:4], unit=1)

    assert trained.backend.owns(dx)
    check_gradient(lambda x: float(np.sum(to_numpy(trained.predict_logits(x))[:, 1])), x[:4], to_numpy(dx), rtol=1e-5)


def test_saliency_of_the_loss(xp64):
    trained = Model([Dense(6), BatchNormalization(), Tanh(), Dense(3)], "softmax_cross_entropy", backend=writable(xp64))
    trained.build((2,))

    dx = saliency(trained, SAMPLES, LABELS)

    check_gradient(lambda x: float(trained.evaluate(x, LABELS)[0]), SAMPLES, to_numpy(dx), rtol=1e-5)


def test_saliency_takes_the_largest_output(xp):
    trained = make_model(xp).build((2,))
    labels = to_numpy(trained.predict_classes(SAMPLES))

    dx = to_numpy(saliency(trained, SAMPLES))

    for i, label in enumerate(labels):
        np.testing.assert_array_equal(dx[i], to_numpy(saliency(trained, SAMPLES, unit=int(label)))[i])


@pytest.mark.parametrize("name", ["image", "shared normalization", "frozen normalization", "transformer", "dropout"])
def test_saliency_of_every_random_and_frozen_layer(name):
    """Only on NumPy, in float64, because the layers' own tests compare all backends."""
    shape, layers = NETWORKS[name]
    trained = Model(layers, "mean_squared_error", backend=make_backend("numpy", dtype="float64")).build(shape)
    x = np.random.default_rng(0).normal(size=(2, *shape))

    dx = saliency(trained, x, unit=0)

    check_gradient(lambda x: float(np.sum(trained.predict_logits(x)[:, 0])), x, dx, rtol=1e-5)


def test_a_crop_is_in_the_middle(xp):
    trained = model(xp, [RandomCrop(4, 3), Flatten(), Dense(1)], shape=IMAGE)

    dx = to_numpy(saliency(trained, np.ones((1, *IMAGE)), unit=0))

    weight = to_numpy(trained.parameters[2]["weight"]).reshape(4, 3, 2)
    np.testing.assert_allclose(dx[0, 1:5, 1:4], weight, rtol=1e-6)
    assert np.count_nonzero(dx) <= weight.size


@dataclass(frozen=True)
class Coin(Layer):
    """A random layer that does not define `at_inference`"""

    needs_key = True

    def forward(self, params, x, *, key):
        return x, lambda dy, need_dx=True: (dy, {})

    def __call__(self, params, x):
        return x


def test_saliency_refuses_what_has_no_gradient():
    """Only on NumPy, because the checks are the same everywhere."""
    numpy = make_backend("numpy")
    with pytest.raises(ValueError, match="at_inference"):
        saliency(model(numpy, [Coin(), Dense(3)]), X)
    with pytest.raises(ValueError, match="unit must be"):
        saliency(model(numpy, [Dense(3)]), X, unit=3)
    with pytest.raises(ValueError, match="Give y"):
        saliency(model(numpy, [Dense(3)]), X, Y, unit=1)
    with pytest.raises(ValueError, match="floating-point"):
        saliency(Model([Embedding(5, 2), Flatten(), Dense(1)], "mse", backend=numpy).build((3,)), np.ones((2, 3), int))


def test_sees_into_custom_containers(xp):
    assert check_gradients(model(xp, [gate(), Dense(3)]), X, Y)
