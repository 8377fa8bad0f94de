"""Settings of a model and of `fit`, checked before anything changes."""

import re

import pytest

from tests.test_inputs import X, Y, refused, regression
from xpnet import Callback, Model, losses
from xpnet.layers import (
    Add,
    Concatenate,
    Dense,
    Dropout,
    Frozen,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    TimeDistributed,
)  # fmt: skip
from xpnet.metrics import Metric


@pytest.mark.parametrize(
    "layers",
    [
        [Add([Sequential([Dense(3), Softmax()])])],
        [Concatenate([Sequential([Dense(1), Softmax()]), Sequential([Dense(2), Softmax(), Dropout(0.1)])])],
        [Dense(4), Frozen(Sequential([Dense(3), Softmax()]))],
    ],
    ids=["Add", "Concatenate", "Frozen"],
)
def test_the_end_of_the_network_is_found_in_every_container(layers):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match="that ends in Softmax"):
        Model(layers, "softmax_cross_entropy")


def test_a_sum_of_different_ends_is_no_activation():
    """Checks only settings, so no backend."""
    Model([Dense(3), Residual(Sequential([Dense(3), Softmax()]))], "softmax_cross_entropy")


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        ([Dense(3, activation="softmax")], "softmax_cross_entropy"),
        ([Dense(3), Softmax()], losses.SoftmaxCrossEntropy(0.1)),
        ([Dense(3), Softmax()], losses.PerPosition(losses.SoftmaxCrossEntropy())),
        ([TimeDistributed(Dense(2, activation="softmax"))], losses.PerPosition(losses.SoftmaxCrossEntropy())),
        ([Dense(2), Sequential([Dense(3), Softmax()])], "softmax_cross_entropy"),
        ([Dense(1), Sigmoid()], "binary_cross_entropy"),
    ],
)
def test_an_activation_that_the_loss_has_in_it_is_refused(last, loss):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match=r"CrossEntropy includes (Softmax|Sigmoid), .* Remove that layer"):
        Model(last, loss)
    Model([Dense(1), Sigmoid()], losses.BinaryCrossEntropy(from_logits=False))


@pytest.mark.parametrize("shape", [(None,), (), "ab", (0,), (2.5, 1), None])
def test_what_is_no_shape_is_refused(shape):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match="input_shape must be the shape of one sample"):
        Model([Dense(1)], "mean_squared_error").build(shape)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "Received: 'hinge'"),
        ({"optimizer": "lion"}, "Received: 'lion'"),
        ({"metrics": ["f1_score"]}, r"Write \"f1\".*Received: 'f1_score'"),
        ({"metrics": "accuracy"}, "metrics must be a list"),
        ({"metrics": ["accuracy", "accuracy"]}, "must have a different name"),
        ({"backend": "theano"}, "Received: 'theano'"),
    ],
)
def test_unknown_names_are_refused(settings, message):
    """Checks only names, so no backend."""
    with pytest.raises(ValueError, match=message):
        Model([Dense(3)], **({"loss": "softmax_cross_entropy"} | settings))


@pytest.mark.parametrize("seed", [-1, 1.5, "3", (), (0, -1), True])
def test_seeds_are_checked(seed):
    """Checked before any array is created, so no backend."""
    with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
        Model([Dense(3)], "softmax_cross_entropy", seed=seed)


def test_arguments_of_others_are_answered_with_ours(xp):
    model = regression(xp)

    assert "fit has no argument workers: one thread reads ahead" in refused(model.fit, X, Y, workers=3)
    assert "fit has no argument lr: pass it to the optimizer" in refused(model.fit, X, Y, lr=0.1)
    assert 'Did you mean "epochs"?' in refused(model.fit, X, Y, epoch=3)
    assert '"unknown"' not in refused(model.fit, X, Y, epoch=3)
    with pytest.raises(TypeError):
        model.fit(X, Y, epoch=3)


@pytest.mark.parametrize(
    ("hook", "advice"),
    [
        ("on_epoch_ended", 'Did you mean "on_epoch_end"?'),
        ("on_sunday", 'would never be called. The methods of a callback are "on_batch_begin", "on_batch_end"'),
    ],
)
def test_a_hook_that_would_never_be_called_is_refused(xp, hook, advice):
    own = type("Own", (Callback,), {hook: lambda self, *args: None})

    assert advice in refused(regression(xp).fit, X, Y, callbacks=[own()], verbose=0)


@pytest.mark.parametrize(
    ("hook", "method", "message"),
    [
        ("on_train_begin", lambda self: None, "must accept logs. Write def on_train_begin(self, logs=None)"),
        (
            "on_epoch_end",
            lambda self, epoch: None,
            "must accept epoch, logs. Write def on_epoch_end(self, epoch, logs=None)",
        ),
    ],
)
def test_a_hook_of_other_arguments_is_refused_before_training(xp, hook, method, message):
    model, own = regression(xp), type("Own", (Callback,), {hook: method})

    assert message in refused(model.fit, X, Y, callbacks=[own()], verbose=0)
    assert "Make an object of the class: Own(...)" in refused(model.fit, X, Y, callbacks=[own], verbose=0)
    assert model.step == 0


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("compile", "Model has no attribute 'compile': pass the same arguments to Model(network, loss"),
        ("predict_proba", "predict returns probabilities"),
        ("layers", "model.network.layers"),
        ("to_json", "save(path) writes the network and everything else to one file"),
        ("eval", "no mode to set"),
        ("nothing", "Model has no attribute 'nothing'"),
    ],
)
def test_methods_of_other_models_are_answered_with_ours(name, advice):
    """No arrays."""
    with pytest.raises(AttributeError, match=re.escape(advice)):
        getattr(Model([Dense(1)], "mse"), name)


def test_a_metric_without_a_name_is_refused(xp):
    class Nameless(Metric):
        def terms(self, y, z):
            return (z[:, 0],)

    assert "A metric needs a name, its key in the history" in refused(Model, [Dense(1)], "mse", metrics=[Nameless()])
