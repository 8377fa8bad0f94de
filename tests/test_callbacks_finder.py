"""The test of learning rates."""

import numpy as np
import pytest

from tests.test_model import X, Y, fit, make_model
from xpnet import SGD, Adam, CheckpointError, Model, plotting
from xpnet.backend import to_numpy
from xpnet.callbacks import LearningRateFinder, ModelCheckpoint
from xpnet.layers import BatchNormalization, Dense, Dropout
from xpnet.tree import named_leaves


def copied(model):
    return {name: np.array(to_numpy(x)) for name, x in named_leaves(model.state)}


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(0.01)])
def test_the_model_is_as_before(optimizer, xp):
    """Training after the test equals training without it."""
    layers = [Dense(5), BatchNormalization(), Dropout(0.2), Dense(3)]
    tested, plain = make_model(xp, optimizer, layers), make_model(xp, optimizer, layers)
    for model in (tested, plain):
        fit(model)
    before = copied(tested)
    fit(tested, 9, callbacks=[finder := LearningRateFinder(num_steps=50)])

    assert 10 < len(finder.losses) <= 50
    assert tested.optimizer == optimizer
    assert (tested.step, tested.epoch) == (6, 1)
    for name, x in copied(tested).items():
        np.testing.assert_array_equal(x, before[name])
    for model in (tested, plain):
        fit(model)
    for name, x in copied(tested).items():
        np.testing.assert_array_equal(x, copied(plain)[name])


def test_losses_and_rates_are_those_of_each_step(xp):
    """They are compared with a run with the same learning rates, recorded step by step."""
    finder = LearningRateFinder(1e-3, 0.1, num_steps=10)
    fit(make_model(xp, SGD(0.5)), 2, callbacks=[finder])
    rates = np.geomspace(1e-3, 0.1, 10)
    plain = make_model(xp, SGD(lambda step: float(rates[min(step, 9)])))
    history = fit(plain, 2, record_every=1)

    assert finder.learning_rates == pytest.approx(rates)
    assert finder.losses == pytest.approx(history.iterations["loss"][:10], rel=1e-4)


@pytest.mark.parametrize(("start", "seen"), [(2.0, 20), (-2.0, 20)])
def test_the_test_ends_when_the_loss_has_risen_enough(start, seen):
    """Losses may be negative. The mean over three steps has risen by more than 2 for the first time. No arrays."""
    finder = LearningRateFinder(num_steps=30)
    finder.set_model(Model([Dense(1)], "mse", backend="numpy"))
    finder.set_params({"steps": 30, "epochs": 1, "verbose": 0})
    finder.on_train_begin()
    finder.on_epoch_begin(0)
    for i in range(30):
        finder.model.step += 1
        finder.on_train_batch_end(i, {"loss": start - 1.0 * (i > 5) + max(i - 15, 0)})
        if finder.model.stop_training:
            break

    assert len(finder.losses) == seen


def test_a_divergence_ends_the_test(xp):
    model = Model([Dense(2)], "mse", SGD(0.1), backend=make_model(xp).backend)
    finder = LearningRateFinder(1.0, 1e30, num_steps=30, stop_factor=1e300)
    model.fit(X, X[:, :2], 20, 9, 0, callbacks=[finder])

    assert len(finder.losses) < 30
    assert (model.step, model.optimizer) == (0, SGD(0.1))


def test_an_interrupt_restores_the_model(xp):
    class Interrupts(LearningRateFinder):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = make_model(xp, SGD(0.1))
    with pytest.raises(KeyboardInterrupt):
        fit(model, 9, callbacks=[Interrupts(num_steps=20)])

    assert (model.step, model.optimizer) == (0, SGD(0.1))


def swept(losses, **settings):
    """Return a finder that has seen these losses. No arrays."""
    finder = LearningRateFinder(1e-4, 1.0, num_steps=len(losses), **settings)
    finder.losses, finder.learning_rates = losses, np.geomspace(1e-4, 1.0, len(losses)).tolist()
    return finder


def test_the_suggestion_is_where_the_loss_falls_fastest():
    """A spike comes after the lowest value."""
    i = np.arange(40)
    losses = [*(2.0 - 1.5 / (1 + np.exp(-(i - 20.0)))).tolist(), 9.0, 90.0, 9.0, 1.0, 1.0, 1.0]
    finder = swept(losses)

    assert finder.suggestion in finder.learning_rates[18:23]
    assert len(finder.smoothed) == 46
    assert finder.smoothed[10] == pytest.approx(np.mean(losses[8:13]))


@pytest.mark.parametrize("losses", [[1.0] * 10, [float(i) for i in range(10)]])
def test_a_loss_that_never_falls_has_no_suggestion(losses):
    assert swept(losses).suggestion is None


def test_several_networks_are_tested_by_their_mean_loss(xp):
    finder = LearningRateFinder(1e-4, 0.1, num_steps=10)
    Model([Dense(1)], "mse", seed=(0, 1), backend=make_model(xp).backend).fit(
        X, Y, 20, 2, 0, shuffle=False, callbacks=[finder]
    )

    assert all(type(loss) is float for loss in finder.losses)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_lr": 0.0}, r"min_lr must be a number in \(0, inf\)"),
        ({"min_lr": 20.0}, "min_lr must be less than max_lr"),
        ({"num_steps": 9}, "num_steps must be at least 10"),
        ({"stop_factor": 0.0}, r"stop_factor must be a number in \(0, inf\)"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        LearningRateFinder(**settings)


def test_too_short_a_run_is_refused_with_the_epochs_to_pass(xp):
    model = make_model(xp)
    with pytest.raises(
        ValueError, match=r"The test takes 100 steps. Pass epochs=17 to fit, .*Received: epochs=2, with 6"
    ):
        fit(model, 2, callbacks=[LearningRateFinder()])

    assert model.step == 0


@pytest.mark.parametrize("first", [0, 1])
def test_a_test_is_not_resumed(first, tmp_path):
    """It is refused before training, with the model as it was. NumPy is enough."""
    model, both = make_model("numpy", SGD(0.1)), [LearningRateFinder(num_steps=20), ModelCheckpoint(tmp_path / "m")]
    with pytest.raises(CheckpointError, match="Received: LearningRateFinder without state_dict"):
        fit(model, 9, callbacks=[both[first], both[1 - first]])

    assert (model.step, model.optimizer) == (0, SGD(0.1))


def test_the_curve_shows_losses_and_suggestion():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    finder = swept([3.0, 3.0, 2.9, 2.5, 2.0, 1.5, 1.2, 1.1, 2.0, 4.0])
    ax = plotting.learning_rate_curve(finder)
    lines = {line.get_label(): line for line in ax.lines}

    assert list(lines["mini-batch"].get_ydata()) == finder.losses
    assert list(lines["smoothed"].get_ydata()) == finder.smoothed
    assert f"suggestion: {finder.suggestion:.2g}" in lines
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "Learning rate", "Loss")
    pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="finder has no losses yet"):
        plotting.learning_rate_curve(LearningRateFinder())
