"""Averages over batches."""

import pytest

from tests.test_loop import STILL, WEIGHT
from tests.test_model import X, Y, fit, make_model
from xpnet import SGD
from xpnet.layers import (
    Dense,
)  # fmt: skip


def test_a_short_last_batch_counts_by_its_rows(xp):
    model = make_model(xp, optimizer=SGD(1e-9), layers=[Dense(3)])
    history = fit(model, batch_size=50)  # 50, 50 and 20 rows

    assert history.history["loss"][0] == pytest.approx(model.evaluate(X, Y).loss, rel=1e-5)
    assert model.step == 3


def test_weights_count_across_batches(xp):
    model = make_model(xp, STILL, [Dense(3)])
    history = fit(model, batch_size=50, sample_weight=WEIGHT).history
    whole = model.evaluate(X, Y, sample_weight=WEIGHT)

    assert (history["loss"][0], history["accuracy"][0]) == pytest.approx(tuple(whole), rel=1e-5)
    assert tuple(model.evaluate(X, Y, 50, sample_weight=WEIGHT)) == pytest.approx(tuple(whole), rel=1e-5)
    assert whole.loss != pytest.approx(model.evaluate(X, Y).loss, rel=1e-3)
