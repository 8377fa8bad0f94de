"""Rules as kernels: on CuPy a rule becomes one kernel with the same results; on other backends the rule is called."""

import gc
import math
import sys
import weakref
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pytest

from xpnet import functions
from xpnet.backend import device, namespace, to_numpy
from xpnet.backend.fusion import fused, kernels_of, map_elements, map_elements_to_trees
from xpnet.layers.windows import Window
from xpnet.losses import Loss, MeanAbsoluteError, MeanSquaredError, SoftmaxCrossEntropy
from xpnet.tree import map_leaves


def kernels_of_cupy():
    return kernels_of(sys.modules["cupy"].ndarray)


def gives_what_the_rule_gives(xp, rule, *host, tolerance=None, kernel=True):
    """Check that `rule` gives the same bits with and without fusion, or results within `tolerance` if it sums."""
    arrays = tuple(map(xp.asarray, host))
    if xp.name == "cupy":
        (launch, _), _ = kernels_of_cupy().traced(rule, arrays)
        assert bool(launch) == kernel
    results = fused(rule, *arrays)
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

    last = -1 if xp.name in ("numpy", "cupy") else 3  # the standard does not define -1
    gives_what_the_rule_gives(xp, rule, np.array([3, 1, last]), rng.normal(size=(4, 5)))


def test_an_array_that_the_rule_captures(xp, rng):
    b = xp.asarray(rng.normal(size=(1, 6)))

    gives_what_the_rule_gives(xp, lambda x: x * b, rng.normal(size=(7, 6)))


def _with_a_fallback(x):
    try:
        return namespace(x).sort(x)
    except Exception:
        return x


def _changed_through_a_view(x):
    y = x * 1.0
    part = y[:2, :]
    if isinstance(y, np.ndarray) or hasattr(part, "data"):
        part += 1.0
    return y + 1.0


UNTRACEABLE = {
    "a view changed through another": lambda x: _changed_through_a_view(x),
    "a sort": lambda x: namespace(x).sort(x),
    "a value that is read": lambda x: x * 2.0 if float(namespace(x).max(x)) > 0 else x,
    "a matrix product": lambda x: x @ x.mT,
    "sums over no axes": lambda x: namespace(x).sum(x, axis=()) + namespace(x).sum(x[0, 0]),
    "integers, whose overflow C++ leaves open": lambda x: (
        namespace(x).astype(x < 0, namespace(x).int32) * (2**31 - 1) + 1 > 0
    ),
    "a range up to a number that is no integer": lambda x: x + namespace(x).arange(2.5, device=device(x)),
    "a fallback of its own": _with_a_fallback,
    "thousands of operations": lambda x: reduce(lambda y, _: y + 1.0, range(3000), x),
    "what is too long for one block of threads": lambda x: (
        namespace(x).broadcast_to(x[:1, :1], (300, 300)) * namespace(x).sum(x)
    ),
    "reductions over all axes in turn": lambda x: namespace(x).sum(
        functions.softmax(namespace(x).broadcast_to(x[:1, :1], (300, 300))), axis=0
    ),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_other_rules_are_called_as_they_are(name, xp, rng):
    gives_what_the_rule_gives(xp, UNTRACEABLE[name], rng.normal(size=(4, 3)), tolerance=1e-6, kernel=False)


def test_numbers_are_arguments(xp, rng):
    """One kernel works for all numbers, sizes and strides."""
    kernels = kernels_of_cupy() if xp.name == "cupy" else None
    before = set(kernels.plans) if kernels else ()
    x = xp.asarray(rng.normal(size=(9, 6)))
    for number, part in ((0.5, x), (0.25, x[:4, :]), (0.125, x[3:8, 1:])):
        np.testing.assert_array_equal(
            to_numpy(fused(lambda x, n=number: x * n, part)), to_numpy(part) * np.float32(number)
        )

    assert not kernels or len(set(kernels.plans) - before) <= 2  # one for contiguous arrays, one for others


def test_a_rule_with_several_results_gives_as_many_trees(xp):
    tree = ({"weight": xp.asarray([1.0]), "bias": xp.asarray([2.0])}, {}, ({"scale": xp.asarray([3.0])},))
    _, negative = map_elements_to_trees(lambda a: (a, -a), tree)

    assert map_leaves(lambda a: to_numpy(a).item(), negative) == ({"weight": -1, "bias": -2}, {}, ({"scale": -3},))


@pytest.mark.parametrize("apply", [fused, map_elements])
def test_an_error_of_the_rule_comes_through_alone(apply, xp):
    def fails(x):
        raise ZeroDivisionError("of the rule")

    with pytest.raises(ZeroDivisionError, match="of the rule") as caught:
        apply(fails, xp.asarray(np.ones(2)))

    assert caught.value.__context__ is None


MISTAKES = {
    "a sum over an axis too many": lambda x: namespace(x).sum(x, axis=2),
    "a maximum over one axis twice": lambda x: namespace(x).max(x, axis=(0, -2)),
    "one axis twice": lambda x: namespace(x).permute_dims(x, (0, 0)),
    "a move of an axis that is not there": lambda x: namespace(x).moveaxis(x, 2, 0),
    "a new axis far behind": lambda x: namespace(x).expand_dims(x, axis=4),
    "joined along no axis": lambda x: namespace(x).concat([x, x], axis=2),
    "a shape that does not fit": lambda x: namespace(x).broadcast_to(x, (4, 2)),
    "a transposed row": lambda x: x[0, :].mT,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_rule_is_an_error(name, xp, rng):
    with pytest.raises((ValueError, IndexError, TypeError, RuntimeError)):
        fused(MISTAKES[name], xp.asarray(rng.normal(size=(4, 3))))


FACTOR = 2.0


def by_a_global_number(x):
    return x * FACTOR


class Settings:
    """Settings that may change."""

    factor = 2.0

    def rule(self, x):
        return x * self.factor


class Factor(MeanSquaredError):
    """Inherits from a frozen dataclass, but is not one."""

    def __init__(self, factor):
        object.__setattr__(self, "factor", factor)

    def elements(self, y, z):
        return z * self.factor, z * 1.0


@dataclass(frozen=True)
class Frozen(Loss):
    factor: float

    def elements(self, y, z):
        return z * self.factor, z * 1.0


def test_what_a_rule_captures_is_not_taken_from_an_earlier_call(xp, monkeypatch):
    """Rules may capture numbers (also global ones), arrays, functions, settings, and objects that change."""
    x, settings = xp.asarray(np.ones((1, 3))), Settings()
    for factor in (2.0, 3.0, -0.0, 0.0):
        settings.factor = factor
        monkeypatch.setattr(sys.modules[__name__], "FACTOR", factor)
        array = xp.asarray(np.full(3, factor))
        by_function = lambda x, f=factor: x * f  # noqa: E731
        losses = [lambda x, loss=loss: fused(loss.elements, x, x)[0] for loss in (Factor(factor), Frozen(factor))]
        rules = [settings.rule, by_a_global_number, lambda x, a=array: x * a, lambda x, f=by_function: f(x)]
        for rule in (*losses, *[lambda x, rule=rule: fused(rule, x) for rule in rules]):
            result = to_numpy(rule(x))

            np.testing.assert_array_equal(result, factor)
            assert np.signbit(result[0, 0]) == np.signbit(factor)


def test_a_rule_of_the_package_is_traced_once(xp, rng, monkeypatch):
    """Other rules are traced in each call, because a function that they call may be redefined, for example in a notebook."""
    x = xp.asarray(rng.normal(size=(4, 3)))
    first = to_numpy(fused(SoftmaxCrossEntropy(0.1)._mean, x, xp.asarray(np.arange(4) % 3))[1])
    if xp.name == "cupy":
        monkeypatch.setattr("xpnet.backend.cuda_kernels.trace_rule", None)

    again = to_numpy(fused(SoftmaxCrossEntropy(0.1)._mean, x, xp.asarray(np.arange(4) % 3))[1])

    np.testing.assert_array_equal(first, again)


def test_nothing_is_kept_of_a_rule_without_a_kernel(xp):
    """600 arrays are more arguments than a kernel accepts."""
    x = [xp.asarray(np.ones(2)) for _ in range(600)]

    def rule(*arrays):
        return tuple([x * 2.0 for x in arrays])

    kept = weakref.ref(rule)
    for _ in range(2):
        fused(rule, *x)
    del rule
    gc.collect()

    assert kept() is None


def test_arrays_of_another_library_are_left_to_cupy(xp):
    if xp.name != "cupy":
        pytest.skip("this backend calls the rule without a kernel")
    with pytest.raises(TypeError, match="Unsupported type"):
        fused(lambda x, y: x + y, xp.asarray(np.ones(2)), np.ones(2))


def test_arrays_of_other_forms_are_not_taken_for_known_ones(xp, rng):
    x = xp.asarray(rng.normal(size=(6, 6)))

    rule = MeanAbsoluteError().elements
    for a, b in ((x, x), (x, x.mT), (x[:3, :], x[3:, :]), (x[::2, :], x[1::2, :]), (x[:1, :], x), (x, x)):
        for value, wanted in zip(fused(rule, a, b), rule(a, b), strict=True):
            np.testing.assert_array_equal(to_numpy(value), to_numpy(wanted))
