"""Unknown keywords of constructors. Host-side, so no backend."""

import copy
import inspect
import pickle
from dataclasses import dataclass

import pytest

from xpnet import (
    SGD,
    Adam,
    EarlyStopping,
    Model,
    Sequential,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    schedules,
)
from xpnet.keywords import ELSEWHERE, REMEDIES, Settings
from xpnet.layers import Dense, Layer


@dataclass(frozen=True)
class Shifted(Layer):
    shift: float = 1.0


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Adam(lr=0.1), 'Adam has no setting \'lr\'. Its settings are "learning_rate", "beta_1", .*Write "learning_rate"'),
        (lambda: SGD(momentun=0.9), 'Did you mean "momentum"'),
        (lambda: Dense(3, kernel_initializer="zeros"), 'Write "weight_initializer"'),
        (lambda: Dense(3, in_features=4), "input size comes with the data"),
        (lambda: Dense(3, trainable=False), r"Frozen\(layer\)"),
        (lambda: layers.ReLU(inplace=True), "ReLU has no settings"),
        (lambda: layers.Dropout(p=0.5), 'Write "rate"'),
        (lambda: Sequential([], name="body"), "summary"),
        (lambda: losses.Huber(beta=1.0), 'Did you mean "delta"|Its settings are "delta"'),
        (lambda: metrics.Accuracy(normalize=True), 'Its settings are "name"'),
        (lambda: schedules.CosineDecay(0.1, T_max=5), 'Write "decay_steps"'),
        (lambda: initializers.RandomNormal(std=1.0), 'Write "stddev"'),
        (lambda: EarlyStopping(patient=3), 'Did you mean "patience"'),
        (lambda: Model([Dense(1)], "mean_squared_error", optimiser="sgd"), 'Did you mean "optimizer"'),
        (lambda: Shifted(shfit=2.0), 'Did you mean "shift"'),
    ],
)  # fmt: skip
def test_an_unknown_keyword_gets_a_suggestion(make, expected):
    with pytest.raises(TypeError, match=expected):
        make()


@pytest.mark.parametrize("make", [lambda: Dense(), lambda: Dense(1, 2, 3, 4, 5, 6), lambda: Dense(3, units=4)])
def test_other_type_errors_are_pythons(make):
    with pytest.raises(TypeError, match=r"Dense.__init__\(\)"):
        make()


def test_an_error_inside_a_constructor_passes():
    @dataclass(frozen=True)
    class Fails(Layer):
        size: int = 1

        def __post_init__(self):
            raise TypeError("from inside")

    with pytest.raises(TypeError, match="from inside"):
        Fails(size=2)


def test_the_signature_is_that_of_the_settings():
    assert list(inspect.signature(Dense).parameters)[:3] == ["units", "activation", "use_bias"]
    assert list(inspect.signature(Layer).parameters) == []
    assert list(inspect.signature(Shifted).parameters) == ["shift"]


def test_objects_are_copied_and_pickled():
    for one in (Dense(3), Adam(0.1)):
        assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one


def test_every_suggested_keyword_exists():
    modules = (layers, losses, metrics, optimizers, schedules, initializers)
    classes = [getattr(module, name) for module in modules for name in dir(module)]
    known = {name for cls in classes if isinstance(cls, Settings) for name in inspect.signature(cls).parameters}

    assert set(ELSEWHERE.values()) <= known
    assert not set(ELSEWHERE) & set(REMEDIES)
