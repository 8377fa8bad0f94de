"""Values as JSON, and back. Host side, so no backend."""

import json
import math

import numpy as np
import pytest

from xpnet import CheckpointError
from xpnet.packing import ArrayPacking, ArrayUnpacking

VALUES = [
    None, True, -3, 2**130, 0.1, math.inf, -math.inf, "text", [1, [2.5, "a"]], (1, (2,), []), {"a": {"float": "nan"}, "tuple": 1},
    {}, [0.1 * i for i in range(300)], list(range(300)), [2**70] * 300, {"array": {"array": 0}}, [True] * 300,
]  # fmt: skip


def packed(value):
    packing = ArrayPacking("run.")
    data = json.loads(json.dumps(packing.value(value, "state"), allow_nan=False))
    assert list(packing.arrays) == [f"run.{i}" for i in range(len(packing.arrays))]
    return data, list(packing.arrays.values())


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_a_value_comes_back(value):
    data, arrays = packed(value)
    again = ArrayUnpacking(arrays).value(data, "state")

    assert again == value
    assert type(again) is type(value)


def test_arrays_and_numbers_of_numpy_come_back():
    value = {"a": np.arange(3), "b": [np.float32(0.1), np.int64(2)], "c": (np.eye(2, dtype=np.float32),), "d": math.nan}
    data, arrays = packed(value)
    again = ArrayUnpacking(arrays).value(data, "state")

    assert np.array_equal(again["a"], value["a"])
    assert again["b"] == [float(np.float32(0.1)), 2]
    assert again["c"][0].dtype == np.float32
    assert math.isnan(again["d"])


def test_a_long_list_of_numbers_takes_no_room_in_the_header():
    data, arrays = packed({"losses": [0.5] * 10_000})

    assert len(json.dumps(data)) < 100
    assert len(arrays) == 1


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, object, print, np.zeros(2, bool)], ids=repr)
def test_other_values_are_refused(value):
    with pytest.raises(CheckpointError, match=r"A checkpoint holds None, numbers.*Received: state\['x'\], a"):
        packed({"x": value})


@pytest.mark.parametrize(
    "data", [{"array": 1}, {"array": -1}, {"array": True}, {"list": "0"}, {"float": "1"}, {"tuple": 1}, {"dict": []},
             {}, {"a": 1, "b": 2}, {"layer": 0}, {"class": "SGD", "settings": {}}, [{"set": []}],
             [{"list": 0}, {"array": 0}]], ids=repr,
)  # fmt: skip
def test_other_data_are_refused(data):
    with pytest.raises(CheckpointError, match="state to be a value"):
        ArrayUnpacking([np.zeros(1)]).value(data, "state")


def test_deep_data_are_refused():
    data = []
    for _ in range(60):
        data = [data]
    with pytest.raises(CheckpointError, match="values at most 50 deep"):
        ArrayUnpacking([]).value(data, "state")
