"""Schedules return Python floats on the host with every backend, so these tests do not use the `xp` fixture."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import schedules
from xpnet.schedules import (
    Constant,
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    Linear,
    OneCycle,
    PiecewiseConstantDecay,
    PolynomialDecay,
    Schedule,
    WarmUp,
)

rates = st.floats(0, 10)
counts = st.integers(1, 1000)
taken = st.integers(0, 5000)
ULP = 1e-14  # a few roundings, because rates are at most 10
NUMBER = "must be a number in [0, inf). Received:"
COUNT = "must be an integer of at least 1. Received:"

EXAMPLES = [
    Constant(0.1),
    Linear(0.1, 40, 0.001),
    PolynomialDecay(0.1, 40, 0.001, 2),
    ExponentialDecay(0.1, 10, 0.5),
    InverseTimeDecay(0.1, 10, 0.5),
    PiecewiseConstantDecay([10, 30], [0.1, 0.01, 0.001]),
    CosineDecay(0.1, 40),
    CosineDecayRestarts(0.1, 10, t_mul=2),
    WarmUp(10, then=CosineDecay(0.1, 40)),
    OneCycle(0.1, 40),
]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.3), {0: 0.3, 10**9: 0.3}),
        (Linear(0.01, 395, 0.0001), {0: 0.01, 79: 0.00802, 395: 0.0001, 399: 0.0001}),  # report B
        (Linear(0, 4, 8), {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 8}),
        (PolynomialDecay(5, 4, 1, 2), {0: 5, 1: 3.25, 2: 2, 3: 1.25, 4: 1, 5: 1}),
        (PolynomialDecay(5, 4, 1, 0.5), {0: 5, 3: 3, 4: 1}),
        (ExponentialDecay(8, 2, 0.25), {0: 8, 1: 4, 2: 2, 4: 0.5}),
        (ExponentialDecay(8, 2, 0.25, staircase=True), {0: 8, 1: 8, 2: 2, 3: 2, 4: 0.5}),
        (InverseTimeDecay(6, 2, 1), {0: 6, 1: 4, 2: 3, 4: 2}),
        (InverseTimeDecay(6, 2, 1, staircase=True), {0: 6, 1: 6, 2: 3, 3: 3, 4: 2}),
        (PiecewiseConstantDecay([2, 4], [5, 3, 1]), {0: 5, 1: 5, 2: 3, 3: 3, 4: 1, 10**9: 1}),
        (PiecewiseConstantDecay([], [5]), {0: 5, 10: 5}),
        (CosineDecay(3, 6, end_learning_rate=1), {0: 3, 2: 2.5, 3: 2, 4: 1.5, 6: 1, 7: 1}),
        (CosineDecayRestarts(3, 6, end_learning_rate=1), {0: 3, 3: 2, 4: 1.5, 6: 3, 9: 2, 6 * 10**9: 3}),
        (CosineDecayRestarts(4, 2, t_mul=3), {0: 4, 1: 2, 2: 4, 5: 2, 6: 1, 8: 4, 17: 2, 26: 4}),
        (CosineDecayRestarts(5, 2, end_learning_rate=1, m_mul=0.5), {0: 5, 1: 3, 2: 3, 3: 2, 4: 2, 5: 1.5}),
        (WarmUp(4, then=8), {0: 0, 1: 2, 3: 6, 4: 8, 10**9: 8}),
        (WarmUp(4, then=Linear(8, 8, 0), initial_learning_rate=4), {0: 4, 1: 5, 4: 8, 6: 6, 12: 0}),
        (WarmUp(2, then=lambda step: 6 / (1 + step)), {0: 0, 1: 3, 2: 6, 3: 3, 4: 2}),
        (OneCycle(8, 11, pct_start=5 / 11, div_factor=4, final_div_factor=2), {0: 2, 2: 5, 4: 8, 7: 4.5, 10: 1, 11: 1}),
        (OneCycle(8, 4, pct_start=0.25), {0: 8, 3: 0.000032}),
    ],
)
def test_values_by_hand(schedule, expected):
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, rel=1e-12)


# Invariants


@given(
    st.sampled_from(
        [Linear, lambda *args: PolynomialDecay(*args, 1.7), lambda a, n, b: CosineDecay(a, n, end_learning_rate=b)]
    ),
    rates,
    rates,
    counts,
    taken,
)
def test_from_start_to_end_monotonically_and_there_it_stays(make, start, end, steps, step):
    schedule = make(start, steps, end)
    here, next_ = schedule(step), schedule(step + 1)

    assert schedule(0) == pytest.approx(start, abs=ULP)
    assert schedule(steps) == schedule(steps + step) == pytest.approx(end, abs=ULP)
    assert min(start, end) - ULP <= here <= max(start, end) + ULP
    assert (next_ - here) * (end - start) >= -ULP


@given(st.sampled_from([ExponentialDecay, InverseTimeDecay]), rates, st.floats(0, 1), counts, st.booleans(), taken)
def test_decays_start_at_start_and_never_rise(kind, start, decay_rate, decay_steps, staircase, step):
    schedule = kind(start, decay_steps, decay_rate, staircase)

    assert schedule(0) == start
    assert start >= schedule(step) >= schedule(step + 1) >= 0


@given(rates, counts, st.integers(1, 4), taken)
def test_cosine_restarts_at_the_start_of_each_cycle(start, steps, multiplier, cycle):
    first = steps * sum(multiplier**i for i in range(cycle % 8))
    length = steps * multiplier ** (cycle % 8)
    schedule, one_cycle = CosineDecayRestarts(start, steps, t_mul=multiplier), CosineDecay(start, length)

    for step in (0, length // 3, length - 1):
        assert schedule(first + step) == pytest.approx(one_cycle(step), abs=ULP)


@given(st.sampled_from(EXAMPLES), rates, counts, st.integers(0, 100))
def test_warm_up_ends_where_the_next_schedule_begins(then, start, steps, step):
    schedule = WarmUp(steps, then, start)

    assert schedule(0) == start
    assert schedule(steps + step) == then(step)
    assert min(start, then(0)) - ULP <= schedule(min(step, steps)) <= max(start, then(0)) + ULP


@given(rates, counts, st.floats(0, 0.9), taken)
def test_one_cycle_rises_to_the_peak_and_then_falls(peak, steps, rise, step):
    schedule = OneCycle(peak, steps, rise)
    here, next_ = schedule(step), schedule(step + 1)

    assert peak / 250_000 - ULP <= here <= peak + ULP
    assert schedule(steps - 1) == schedule(steps + step) == pytest.approx(peak / 250_000, abs=ULP)
    if step + 1 <= rise * steps - 1:
        assert next_ >= here - ULP
    if step >= rise * steps - 1:
        assert next_ <= here + ULP


@given(st.lists(counts, unique=True, max_size=5).map(sorted), taken)
def test_piecewise_counts_the_boundaries_passed(boundaries, step):
    assert PiecewiseConstantDecay(boundaries, range(len(boundaries) + 1))(step) == sum(b <= step for b in boundaries)


# Settings


@pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)
def test_equal_schedules_are_one_cache_key_and_give_floats(schedule):
    same = dataclasses.replace(schedule)

    assert schedule == same
    assert hash(schedule) == hash(same)
    assert all(type(schedule(step)) is float for step in (0, 7, 1000))


def test_numpy_settings_become_python_numbers():
    schedule = Linear(np.float32(0.5), np.int64(10), np.int64(0))

    assert (
        repr(schedule)
        == "Linear(restart_every_epoch=False, initial_learning_rate=0.5, decay_steps=10, end_learning_rate=0.0)"
    )


def test_restart_every_epoch_is_a_keyword_of_every_schedule():
    assert not Linear(0.1, 10, 0).restart_every_epoch
    assert Linear(0.1, 10, 0, restart_every_epoch=True).restart_every_epoch
    assert WarmUp(10, 0.1, restart_every_epoch=True).restart_every_epoch
    with pytest.raises(TypeError):
        Constant(0.1, True)


def test_get():
    schedule, function = Linear(0.1, 10, 0), (lambda step: 0.1)

    assert schedules.get(0.1) == Constant(0.1)
    assert WarmUp(10, 0.1) == WarmUp(10, Constant(0.1))
    assert schedules.get(np.float64(0.5)) == Constant(0.5)
    assert schedules.get(schedule) is schedule
    assert schedules.get(function) is function


@pytest.mark.parametrize("value", ["linear", None, Linear, [0.1]])
def test_get_of_something_else(value):
    with pytest.raises(ValueError, match=r"a number, a schedule .*, or a function") as error:
        schedules.get(value)

    assert str(error.value).endswith(f"Received: {value!r}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1), f"value {NUMBER} value=-1"),
        (lambda: schedules.get(-1), f"learning_rate {NUMBER} learning_rate=-1"),
        (lambda: schedules.get(True), f"learning_rate {NUMBER} learning_rate=True"),
        (
            lambda: PiecewiseConstantDecay([5], [1, 0.1], restart_every_epoch="no"),
            "restart_every_epoch must be True or False. Received: restart_every_epoch='no'",
        ),
        (
            lambda: ExponentialDecay(1, 10, 0.5, staircase="no"),
            "staircase must be True or False. Received: staircase='no'",
        ),
        (lambda: Linear(math.nan, 10, 0), f"initial_learning_rate {NUMBER} initial_learning_rate=nan"),
        (lambda: Linear(1, 10, math.inf), f"end_learning_rate {NUMBER} end_learning_rate=inf"),
        (lambda: Linear("1", 10, 0), f"initial_learning_rate {NUMBER} initial_learning_rate='1'"),
        (lambda: PolynomialDecay(1, 10, 0, -1), f"power {NUMBER} power=-1"),
        (lambda: PiecewiseConstantDecay([5], [1, -1]), f"values[1] {NUMBER} values[1]=-1"),
        (lambda: Linear(1, 0, 0), f"decay_steps {COUNT} decay_steps=0"),
        (lambda: CosineDecay(1, 0.0), f"decay_steps {COUNT} decay_steps=0.0"),
        (lambda: ExponentialDecay(1, 2.5, 0.5), f"decay_steps {COUNT} decay_steps=2.5"),
        (lambda: CosineDecayRestarts(1, 5, t_mul=0), f"t_mul {COUNT} t_mul=0"),
        (lambda: PiecewiseConstantDecay([0], [1, 2]), f"boundaries[0] {COUNT} boundaries[0]=0"),
        (
            lambda: PiecewiseConstantDecay([5, 5], [1, 2, 3]),
            "boundaries must increase. Sort them and remove duplicates. Received: boundaries=(5, 5)",
        ),
        (
            lambda: PiecewiseConstantDecay([5], [1]),
            "values must hold one entry more than boundaries. Give the values before, between and after the boundaries. "
            "Received: values=(1.0,), boundaries=(5,)",
        ),
        (
            lambda: WarmUp(5, Constant(1, restart_every_epoch=True)),
            "then must not restart every epoch by itself. Set restart_every_epoch=True on WarmUp instead. "
            "Received: then=Constant(restart_every_epoch=True, value=1.0)",
        ),
        (
            lambda: OneCycle(1, 10, pct_start=1),
            "pct_start, the share of steps before the largest learning rate, must be less than 1. Received: pct_start=1.0",
        ),
        (
            lambda: OneCycle(1, 10, div_factor=0.5),
            "div_factor, a divisor of max_lr, must be at least 1. Received: div_factor=0.5",
        ),
        (
            lambda: OneCycle(1, 10, final_div_factor=0),
            "final_div_factor, a divisor of max_lr, must be at least 1. Received: final_div_factor=0.0",
        ),
    ],
)
def test_errors_give_the_rule_the_remedy_and_what_was_received(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (compared whole below)
        make()

    assert str(error.value) == message


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Schedule()


# Against the libraries


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (Linear(0.5, 30, 0.05), "LinearLR", {"start_factor": 1, "end_factor": 0.1, "total_iters": 30}),
        (PolynomialDecay(0.5, 30, 0, 3), "PolynomialLR", {"total_iters": 30, "power": 3}),
        (ExponentialDecay(0.5, 1, 0.9), "ExponentialLR", {"gamma": 0.9}),
        (ExponentialDecay(0.5, 20, 0.1, staircase=True), "StepLR", {"step_size": 20, "gamma": 0.1}),
        (PiecewiseConstantDecay([10, 35], [0.5, 0.05, 0.005]), "MultiStepLR", {"milestones": [10, 35]}),
        (CosineDecay(0.5, 60, end_learning_rate=0.01), "CosineAnnealingLR", {"T_max": 60, "eta_min": 0.01}),
        (
            CosineDecayRestarts(0.5, 9, end_learning_rate=0.01),
            "CosineAnnealingWarmRestarts",
            {"T_0": 9, "eta_min": 0.01},
        ),
        (CosineDecayRestarts(0.5, 9, t_mul=2), "CosineAnnealingWarmRestarts", {"T_0": 9, "T_mult": 2}),
        (OneCycle(0.5, 60), "OneCycleLR", {"max_lr": 0.5, "total_steps": 60}),
        (
            OneCycle(0.5, 60, 0.45, 10, 100),
            "OneCycleLR",
            {"max_lr": 0.5, "total_steps": 60, "pct_start": 0.45, "div_factor": 10, "final_div_factor": 100},
        ),
    ],
)
def test_against_torch(ours, theirs, settings):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scheduler = getattr(torch.optim.lr_scheduler, theirs)(optimizer, **settings)

    for step in range(60):
        assert ours(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-10, abs=1e-15)  # torch counts steps
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (PolynomialDecay(0.5, 30, 0.1, 2), "PolynomialDecay", (0.5, 30, 0.1, 2)),
        (ExponentialDecay(0.5, 7, 0.9), "ExponentialDecay", (0.5, 7, 0.9)),
        (ExponentialDecay(0.5, 7, 0.9, staircase=True), "ExponentialDecay", (0.5, 7, 0.9, True)),
        (InverseTimeDecay(0.5, 7, 0.9), "InverseTimeDecay", (0.5, 7, 0.9)),
        (InverseTimeDecay(0.5, 7, 0.9, staircase=True), "InverseTimeDecay", (0.5, 7, 0.9, True)),
        (PiecewiseConstantDecay([10 + 1, 30 + 1], [0.5, 0.1, 0]), "PiecewiseConstantDecay", ([10, 30], [0.5, 0.1, 0])),
        (CosineDecay(0.5, 30, end_learning_rate=0.05), "CosineDecay", (0.5, 30, 0.1)),
        (
            WarmUp(10, CosineDecay(0.5, 30), initial_learning_rate=0.1),
            "CosineDecay",
            (0.1, 30, 0, "CosineDecay", 0.5, 10),
        ),
        (CosineDecayRestarts(0.5, 8, 1, 0.8, end_learning_rate=0.05), "CosineDecayRestarts", (0.5, 8, 1, 0.8, 0.1)),
        (CosineDecayRestarts(0.5, 8, 3, 0.8, end_learning_rate=0.05), "CosineDecayRestarts", (0.5, 8, 3, 0.8, 0.1)),
    ],
)
def test_against_keras(ours, theirs, settings):
    keras = pytest.importorskip("keras")
    schedule = getattr(keras.optimizers.schedules, theirs)(*settings)

    for step in range(60):
        assert ours(step) == pytest.approx(float(schedule(step)), rel=1e-5, abs=1e-6)  # float32


def test_a_function_of_anything_but_the_step_is_refused():
    with pytest.raises(ValueError, match=r"must accept one argument, the step counted from 0\. Received: .*'rate'"):
        schedules.get(lambda epoch, rate: 0.9 * rate)
