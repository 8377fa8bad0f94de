"""One training step on several backends."""

import numpy as np
import pytest

from tests.containers import X, Y, model
from xpnet import available_backends, compare_backends
from xpnet.backend import make_backend
from xpnet.errors import BackendNotAvailableError
from xpnet.layers import Dense, Dropout, Tanh


def test_backends_agree_to_rounding(xp):
    if xp.name == "array_api_strict":
        pytest.skip("its test backend allows arrays on one device only")
    trained = model(xp, [Dense(8), Tanh(), Dropout(0.3), Dense(3)])
    before = trained.state_dict()
    others = ("array_api_strict" if xp.name == "numpy" else "numpy", xp.name)

    compared = compare_backends(trained, X, Y, backends=others)

    assert compared.backends == others
    assert compared.largest < 1e-5
    assert compared.differences["x"] == 0
    assert trained.backend.name == xp.name
    for name, value in trained.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_the_table_has_a_row_for_each_layer():
    """Only between NumPy and array-api-strict, which compute the same bits."""
    compared = compare_backends(model(make_backend("numpy"), [Dense(3)]), X, Y, backends=["numpy", "array_api_strict"])

    assert str(compared) == (
        "layer   output  gradients  updated\n"
        "----------------------------------\n"
        "0      0.0e+00    0.0e+00  0.0e+00\n"
        "loss   0.0e+00    0.0e+00\n"
        "largest differences between numpy, array_api_strict, relative to each array's largest value"
    )
    assert compared._repr_html_().startswith("<table>")


@pytest.mark.slow
def test_takes_every_usable_backend():
    compared = compare_backends(model(make_backend("numpy"), [Dense(3), Tanh()]), X, Y)

    assert list(compared.backends) == [
        name for name, state in available_backends().items() if state.startswith("usable")
    ]
    assert compared.largest < 1e-5


def test_an_unusable_backend_is_an_error():
    missing = [name for name, state in available_backends().items() if not state.startswith("usable")]
    if not missing:
        pytest.skip("every backend is usable on this machine")

    with pytest.raises(BackendNotAvailableError):
        compare_backends(model(make_backend("numpy"), [Dense(3)]), X, Y, backends=["numpy", missing[0]])


@pytest.mark.parametrize("backends", [[], ["numpy"], "numpy"])
def test_one_backend_cannot_be_compared(backends):
    with pytest.raises(ValueError, match=r"two or more backends.*Received"):
        compare_backends(model(make_backend("numpy"), [Dense(3)]), X, Y, backends=backends)
