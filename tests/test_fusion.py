"""Rules as kernels: on CuPy a rule becomes one kernel, which gives what the rule gives; elsewhere the rule is called."""

import math
import sys

import numpy as np
import pytest

from xpnet import functions
from xpnet.backend import device, namespace, to_numpy
from xpnet.backend.fusion import fused, kernels_of
from xpnet.layers.windows import Window
from xpnet.losses import SoftmaxCrossEntropy


def no_plans():
    """The kernels from now on, by key; None where no library fuses rules."""
    kernels = kernels_of(getattr(sys.modules.get("cupy"), "ndarray", None))
    if kernels is None:
        return None
    kernels.known.clear()
    kernels.plans.clear()
    return kernels.plans


def gives_what_the_rule_gives(xp, rule, *host, tolerance=None, kernel=True):
    """`rule` of arrays on the backend, fused and as it is: equal to the last bit, or where sums are taken within `tolerance`."""
    known = no_plans()
    results = fused(rule, *map(xp.asarray, host))
    if xp.name == "cupy":
        assert [type(plan).__name__ for plan in known.values()] == (["Plan"] if kernel else [])
    expected = rule(*map(xp.asarray, host))
    if not isinstance(results, tuple):
        results, expected = (results,), (expected,)
    for value, wanted in zip(results, expected, strict=True):
        assert value.dtype == wanted.dtype
        assert tuple(value.shape) == tuple(wanted.shape)
        if tolerance is None:
            np.testing.assert_array_equal(to_numpy(value), to_numpy(wanted))
        else:
            np.testing.assert_allclose(to_numpy(value), to_numpy(wanted), rtol=tolerance, atol=tolerance)


def halves(z):
    s = functions.sigmoid(z)
    return s[:, :3] * s[:, 3:], s[:, 1::2]


def changes_in_place(x, y):
    x = x * 1.0
    before = x
    x += y
    return before, x.mT


ELEMENTWISE = {
    "sigmoid": (functions.sigmoid, (7, 6)),
    "error function": (functions.erf, (7, 6)),
    "powers": (lambda x: (x * x + 1.0) ** -0.5 + x**2, (7, 6)),
    "broadcast": (lambda x, b: x * b + 1.0, (4, 7, 6), (1, 6)),
    "no axes": (lambda x, s: (x * s, s + 1.0), (7, 6), ()),
    "views": (lambda x, y: (x - y[:, ::2], y.mT * 2.0, y[1:6:2, None, 1], y[-1, ...]), (7, 3), (7, 6)),
    "views of what is computed": (halves, (5, 6)),
    "choice": (lambda x, y: namespace(x).where((x > 0) & ~(y < 0), x, -math.inf), (7, 6), (7, 6)),
    "truth as numbers": (lambda x: namespace(x).astype(x >= 0, x.dtype) * x, (7, 6)),
    "joined": (lambda x, y: namespace(x).concat([x * 2.0, y, x], axis=-1), (7, 2), (7, 6)),
    "stacked": (lambda x, y: namespace(x).reshape(namespace(x).stack([x, y * x], axis=1), (14, 6)), (7, 6), (7, 6)),
    "moved": (lambda x: namespace(x).moveaxis(namespace(x).permute_dims(x + 1.0, (2, 0, 1)), 0, -1), (4, 3, 5)),
    "in place": (changes_in_place, (7, 6), (7, 6)),
    "new": (lambda x: x + namespace(x).arange(6, dtype=x.dtype, device=device(x)) + namespace(x).zeros_like(x), (7, 6)),
}  # fmt: skip
WITH_SUMS = {
    "softmax": (functions.softmax, (7, 6)),
    "of long rows": (functions.log_softmax, (3, 1000)),
    "of columns": (lambda x: namespace(x).sum(x * x, axis=0, keepdims=True) + x, (50, 6)),
    "of all": (lambda x: namespace(x).mean(x), (50, 40)),
    "of rows, then of all": (lambda x: namespace(x).sum(namespace(x).max(x * x, axis=-1)), (100, 10)),
    "row and elements": (lambda x: (namespace(x).sum(x, axis=-1), namespace(x).vecdot(x, x)[:, None] * x), (5, 40)),
    "maxima": (lambda x: (namespace(x).argmax(x, axis=-1), namespace(x).min(x, axis=-1)), (50, 40)),
    "truth": (lambda x: (namespace(x).any(x > 2, axis=1), namespace(x).all(namespace(x).isfinite(x), axis=1)), (50, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_without_sums_to_the_last_bit(name, xp, rng):
    rule, *shapes = ELEMENTWISE[name]

    gives_what_the_rule_gives(xp, rule, *(rng.normal(size=shape) for shape in shapes))


@pytest.mark.parametrize("name", WITH_SUMS)
def test_with_sums(name, xp, rng):
    rule, *shapes = WITH_SUMS[name]

    gives_what_the_rule_gives(xp, rule, *(rng.normal(size=shape) for shape in shapes), tolerance=3e-6)


def test_special_values(xp):
    x = np.array([[np.nan, 1.0, np.inf], [-np.inf, 0.0, -0.0], [np.inf, np.inf, 3.0]])

    def rule(x):
        f = namespace(x)
        return (
            f.maximum(x, 0.5),
            f.minimum(x, x.mT),
            f.isfinite(x),
            f.max(x, axis=-1),
            f.argmax(x, axis=-1),
            functions.softmax(x),
        )

    gives_what_the_rule_gives(xp, rule, x, tolerance=1e-6)


@pytest.mark.parametrize("window", [Window(10, 3), Window(10, 3, 2), Window(11, 3, 2, 2), Window(10, 2, 2)], ids=repr)
def test_overlapping_parts_are_added_in_order(window, xp, rng):
    parts = [rng.normal(size=(2, window.count, 3)) for _ in range(window.kernel)]

    gives_what_the_rule_gives(xp, lambda *parts: window.add(parts, -2), *parts)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32"])
def test_labels_and_rows(dtype, xp, rng):
    y = rng.integers(0, 3, 5)
    y = np.eye(3)[y] if dtype == "float32" else y.astype(dtype)

    gives_what_the_rule_gives(
        xp, lambda z, y: SoftmaxCrossEntropy(0.1).elements(y, z), rng.normal(size=(5, 3)), y, tolerance=1e-6
    )


def test_rows_are_gathered(xp, rng):
    def rule(index, x):
        return namespace(x).take(x, index, axis=0) * 2.0

    gives_what_the_rule_gives(xp, rule, np.array([3, 1, 1]), rng.normal(size=(4, 5)))


def test_an_array_that_the_rule_captures(xp, rng):
    b = xp.asarray(rng.normal(size=(1, 6)))

    gives_what_the_rule_gives(xp, lambda x: x * b, rng.normal(size=(7, 6)))


UNTRACEABLE = {
    "a view changed through another": lambda x: _changed_through_a_view(x),
    "a sort": lambda x: namespace(x).sort(x),
    "a value that is read": lambda x: x * 2.0 if float(namespace(x).max(x)) > 0 else x,
    "a matrix product": lambda x: x @ x.mT,
}


def _changed_through_a_view(x):
    y = x * 1.0
    part = y[:2, :]
    if isinstance(y, np.ndarray) or hasattr(part, "data"):
        part += 1.0
    return y + 1.0


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_other_rules_are_called_as_they_are(name, xp, rng):
    gives_what_the_rule_gives(xp, UNTRACEABLE[name], rng.normal(size=(4, 3)), tolerance=1e-6, kernel=False)


def test_numbers_are_arguments(xp, rng):
    """A kernel serves every number, size and stride."""
    known = no_plans()
    x = xp.asarray(rng.normal(size=(9, 6)))
    for number, part in ((0.5, x), (0.25, x[:4, :]), (0.125, x[3:8, 1:])):
        np.testing.assert_array_equal(
            to_numpy(fused(lambda x, n=number: x * n, part)), to_numpy(part) * np.float32(number)
        )

    assert xp.name != "cupy" or len(known) == 2  # contiguous or not


def test_an_error_of_the_rule_comes_through(xp):
    def fails(x):
        raise ZeroDivisionError("of the rule")

    with pytest.raises(ZeroDivisionError, match="of the rule"):
        fused(fails, xp.asarray(np.ones(2)))


class Settings:
    """They may change."""

    factor = 2.0

    def rule(self, x):
        return x * self.factor


def test_what_a_rule_captures_is_not_taken_from_an_earlier_call(xp):
    """Numbers, arrays, functions, and objects that change."""
    x, settings = xp.asarray(np.ones(3)), Settings()
    for factor in (2.0, 3.0, -0.0, 0.0):
        settings.factor = factor
        array = xp.asarray(np.full(3, factor))
        by_function = lambda x, f=factor: x * f  # noqa: E731
        for rule in (settings.rule, lambda x, a=array: x * a, lambda x, f=by_function: f(x)):
            result = to_numpy(fused(rule, x))

            np.testing.assert_array_equal(result, factor)
            assert np.signbit(result[0]) == np.signbit(factor)


def test_arrays_of_other_forms_are_not_taken_for_known_ones(xp, rng):
    host = rng.normal(size=(6, 6))
    x = xp.asarray(host)
    host = to_numpy(x)

    def rule(a, b):
        return namespace(a).where(a > b, a, b)

    for a, b in ((x, x), (x, x.mT), (x[:3, :], x[3:, :]), (x[::2, :], x[1::2, :]), (x[:1, :], x), (x, x)):
        np.testing.assert_array_equal(to_numpy(fused(rule, a, b)), np.maximum(to_numpy(a), to_numpy(b)))
