"""The history that `fit` returns."""

import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model
from xpnet import Callback, EarlyStopping


def test_records_every_k_steps(xp):
    """`fit` records mini-batch and validation values at every third step. Recording does not change the run."""
    plain, recorded = make_model(xp), make_model(xp)
    fit(plain, epochs=2)
    history = fit(recorded, epochs=2, record_every=3, validation_data=(X, Y))

    assert history.iterations["step"] == [2, 5, 8, 11]
    assert sorted(history.iterations) == ["accuracy", "loss", "step", "val_accuracy", "val_loss"]
    assert history.iterations["val_loss"][-1] == pytest.approx(history.history["val_loss"][-1], rel=1e-6)
    assert_same_parameters(plain, recorded, rtol=1e-6, atol=1e-7)


def test_a_value_recorded_at_a_step_is_that_after_the_step(xp):
    recorded, watched, values = make_model(xp), make_model(xp), []

    class Watch(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % 3 == 2:
                values.append(self.model.evaluate(X, Y).loss)

    history = fit(recorded, 2, record_every=3, validation_data=(X, Y))
    fit(watched, 2, callbacks=[Watch()])

    assert history.iterations["val_loss"] == pytest.approx(values, rel=1e-4)


def test_the_history_tells_how_fit_was_called(xp):
    model = make_model(xp)
    weights, callbacks = {0: 2.0, 1: 1.0, 2: 1.0}, [EarlyStopping()]
    history = model.fit(
        X, Y, batch_size=20, epochs=2, validation_split=0.25, verbose=0, class_weight=weights, callbacks=callbacks
    )

    assert history.params["weighted"]
    assert history.params["class_weight"] == weights
    assert history.params["callbacks"] == ["EarlyStopping"]
    assert history.params["samples"] == len(X) - len(X) // 4
    assert history.params["steps"] == -(-history.params["samples"] // 20)
    assert {name: history.params[name] for name in ("batch_size", "epochs", "validation_split", "shuffle")} == {
        "batch_size": 20, "epochs": 2, "validation_split": 0.25, "shuffle": True,
    }  # fmt: skip
