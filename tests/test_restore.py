"""`load_model` with other backends, other types and custom classes."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from xpnet import CheckpointError, Model, get_backend, load_model, to_numpy, use_backend
from xpnet.backend import make_backend
from xpnet.layers import BatchNormalization, Dense, Layer
from xpnet.losses import Loss

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
LABELS = np.arange(20) % 3


def trained(backend):
    model = Model([Dense(5, "gelu"), BatchNormalization(), Dense(3)], "softmax_cross_entropy", "adam", backend=backend)
    model.fit(X, LABELS, epochs=2, verbose=0)
    return model


def test_another_backend_predicts_and_trains_alike(xp, tmp_path):
    here, there = trained(make_backend("numpy")), tmp_path / "model"
    here.save(there)
    model = load_model(there, xp)

    assert model.backend == xp
    assert np.allclose(to_numpy(model.predict(X)), here.predict(X), atol=1e-6)
    model.save(tmp_path / "back")
    assert np.array_equal(load_model(tmp_path / "back", "numpy").predict(X), here.predict(X))
    model.fit(X, LABELS, verbose=0)
    here.fit(X, LABELS, verbose=0)
    assert np.allclose(to_numpy(model.predict(X)), here.predict(X), atol=1e-4)


def test_another_type_predicts_alike(xp, xp64, tmp_path):
    single, double = trained(xp), trained(xp64)
    single.save(tmp_path / "single")
    double.save(tmp_path / "double")

    assert load_model(tmp_path / "double", xp64).get_weights()[0].dtype == np.float64
    wider = to_numpy(load_model(tmp_path / "single", xp64).predict(X.astype(np.float64)))
    assert wider.dtype == np.float64
    assert np.allclose(wider, to_numpy(single.predict(X)), atol=1e-5)
    narrower = to_numpy(load_model(tmp_path / "double", xp).predict(X))
    assert narrower.dtype == np.float32
    assert np.allclose(narrower, to_numpy(double.predict(X)), atol=1e-5)


def test_values_too_large_for_the_type_are_refused(tmp_path):
    """The check is on the host, so NumPy is enough."""
    model = Model([Dense(1)], "mse", backend=make_backend("numpy", dtype="float64")).build((2,))
    model.set_weights([np.full((2, 1), 1e300), np.zeros((1, 1))])
    model.save(tmp_path / "model")

    with pytest.raises(CheckpointError, match=r"finite values in float32. Received: NaN or infinity in 0\.weight"):
        load_model(tmp_path / "model")


def test_the_backend_in_force_takes_the_model(xp, tmp_path):
    trained(make_backend("numpy")).save(tmp_path / "model")

    with use_backend(xp):
        assert load_model(tmp_path / "model").backend == get_backend() == xp


@dataclass(frozen=True)
class Sine(Layer):
    frequency: float = 1.0

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, params, x):
        return self.frequency * x, lambda dy, need_dx=True: (self.frequency * dy, params)


@dataclass(frozen=True)
class Half(Loss):
    factor: float = 0.5

    def elements(self, y, z):
        return self.factor * (z - y) ** 2, 2 * self.factor * (z - y)


def test_custom_classes_are_passed(xp, tmp_path):
    model = Model([Sine(2.0), Dense(1)], Half(0.25), backend=xp)
    model.fit(X, X[:, :1], verbose=0)
    model.save(tmp_path / "model")

    with pytest.raises(CheckpointError, match=r"The class of layer 0 is not an xpnet class\. Pass custom_objects"):
        load_model(tmp_path / "model", xp)
    again = load_model(tmp_path / "model", xp, custom_objects={"Sine": Sine, "Half": Half})
    assert again.loss == Half(0.25)
    assert np.array_equal(to_numpy(again.predict(X)), to_numpy(model.predict(X)))
    assert again.checked is not again.network  # the first step checks custom layers

    narrow = dataclasses.make_dataclass("Sine", [], bases=(Layer,), frozen=True)
    with pytest.raises(CheckpointError, match="layer 0, Sine, to have settings among"):
        load_model(tmp_path / "model", xp, custom_objects={"Sine": narrow, "Half": Half})
    with pytest.raises(TypeError, match="custom_objects must map names to dataclasses"):
        load_model(tmp_path / "model", xp, custom_objects=[Sine])
