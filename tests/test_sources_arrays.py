"""Arrays on the device as a source of batches: orders, positions and sizes. The rows are numbers on the host, so no backend."""

import numpy as np
import pytest

from xpnet.settings import FitSettings
from xpnet.sources import ArraySource, Slices


def source(n=10, **settings):
    return ArraySource({"x": np.arange(n)[:, None], "y": np.zeros(n)}, FitSettings(**{"batch_size": 3} | settings), ())


def taken(batches, most=2):
    with batches:
        while (chunk := batches.take(most)) is not None:
            yield from chunk.columns["index"].tolist()


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"sample_with_replacement": True}], ids=str)
@pytest.mark.parametrize("most", [1, 2, 100])
def test_an_epoch_from_a_position_is_the_rest_of_the_epoch(settings, most):
    whole = list(taken(source(**settings).epoch(0, 5, 0)))

    assert [len(rows) for rows in whole] == [3, 3, 3, 1]
    for position in range(5):
        assert list(taken(source(**settings).epoch(0, 5, position), most)) == whole[position:]


def test_batches_of_one_size_come_at_once_and_the_smaller_last_one_alone():
    batches = source().epoch(0, 0, 0)

    assert [batches.alike, batches.take(9).steps] == [3, 3]
    assert [batches.alike, batches.take(9).rows] == [1, 1]
    assert batches.take(9) is None


def test_a_batch_of_all_rows_in_their_order_needs_no_row_numbers():
    assert source(batch_size=10).epoch(0, 0, 0).take(1).columns == {}
    assert source(batch_size=10, sample_with_replacement=True).epoch(0, 0, 0).take(1).columns != {}


def test_slices_hold_every_row_once():
    slices = Slices({"x": np.arange(10)[:, None]}, 4)

    assert [batch["x"].ravel().tolist() for batch in slices] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert slices.steps == 3
