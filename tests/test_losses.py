"""Each loss on each backend: values computed by hand, gradients checked numerically, and the targets that `check` accepts."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import no_sync
from tests.gradients import check_gradient
from xpnet import losses
from xpnet.backend import device, make_backend, namespace, to_numpy
from xpnet.losses import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    GaussianNLL,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
)

LOSSES = [
    SoftmaxCrossEntropy(), SoftmaxCrossEntropy(label_smoothing=0.1), CategoricalCrossEntropy(), BinaryCrossEntropy(),
    BinaryCrossEntropy(from_logits=False), MeanSquaredError(), MeanAbsoluteError(), Huber(), Huber(0.5), Poisson(),
    Poisson(log_input=False), Quantile(), Quantile(0.9), GaussianNLL(),
]  # fmt: skip
CLASS_LOSSES = (SoftmaxCrossEntropy, CategoricalCrossEntropy)

each_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def draw(loss, rng, batch=4, units=3, networks=()):
    """Draw host targets and outputs in the loss's domain, away from kinks, where it has no derivative."""
    shape = (*networks, batch, units)
    if isinstance(loss, CLASS_LOSSES):
        z = rng.normal(size=shape)
        if isinstance(loss, CategoricalCrossEntropy):
            z = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
        return rng.integers(0, units, batch), z
    if isinstance(loss, BinaryCrossEntropy):
        z = rng.normal(size=shape) if loss.from_logits else rng.uniform(0.1, 0.9, shape)
        return rng.uniform(size=(batch, units)), z
    if isinstance(loss, Poisson):
        return rng.integers(0, 5, (batch, units)) * 1.0, rng.uniform(0.5, 2.0, shape)
    y = rng.normal(size=(batch, units))
    z = y + rng.choice([-1.5, -0.7, -0.3, 0.3, 0.7, 1.5], shape) + rng.uniform(0.0, 0.1, shape)
    if isinstance(loss, GaussianNLL):
        z = np.concatenate([z, rng.normal(size=shape)], axis=-1)
    return y, z


def compute(xp, loss, *arrays):
    """Return value and gradient on the host, compiled if the backend compiles."""
    value, dz = xp.call(loss, *(None if array is None else xp.asarray(array) for array in arrays))
    return to_numpy(value), to_numpy(dz)


@each_loss
@few
@given(batch=st.integers(1, 4), units=st.integers(1, 3), seed=st.integers(0, 99))
def test_gradient(loss, xp64, batch, units, seed):
    rng = np.random.default_rng(seed)
    y, z = draw(loss, rng, batch, units + 1)
    y, weight = xp64.asarray(y), xp64.asarray(rng.uniform(0.5, 2.0, batch))

    _, dz = xp64.call(loss, y, xp64.asarray(z), weight)

    check_gradient(lambda z: float(xp64.call(loss, y, xp64.asarray(z), weight)[0]), z, dz)


@each_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_numpy(loss, weighted, xp, rng):
    y, z = draw(loss, rng, batch=7)
    weight = rng.uniform(size=7) if weighted else None

    value, dz = compute(xp, loss, y, z, weight)

    expected, expected_dz = loss(y, z, weight)  # in float64
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(dz, expected_dz, rtol=1e-4, atol=1e-6)  # differences of float32 numbers near 1


@each_loss
@pytest.mark.parametrize("networks", [(), (2,)])
def test_outputs_are_of_z_s_type_and_inputs_stay(loss, networks, xp, rng):
    inputs = [xp.asarray(array) for array in (*draw(loss, rng, networks=networks), np.ones(4))]
    before = [to_numpy(array).copy() for array in inputs]

    value, dz = loss(*inputs)
    prediction = loss.activation(inputs[1])

    assert value.shape == networks
    assert dz.shape == prediction.shape == inputs[1].shape
    for array in (value, dz, prediction):
        assert array.dtype == xp.dtype
        assert namespace(array) is xp.namespace
        assert device(array) == xp.device
    for array, old in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(to_numpy(array), old)


@each_loss
def test_one_sample_of_one_unit_stays(loss, xp, rng):
    inputs = [xp.asarray(array) for array in draw(loss, rng, batch=1, units=1)]
    before = to_numpy(inputs[1]).copy()

    loss(*inputs)

    np.testing.assert_array_equal(to_numpy(inputs[1]), before)


@each_loss
def test_no_value_is_read(loss, xp, rng):
    y, z = (xp.asarray(array) for array in draw(loss, rng))

    with no_sync():
        eager = loss(y, z, z[:, 0] * 0)
        xp.call(loss.activation, z)  # compiled on JAX, which refuses to read values
        compiled = xp.call(loss, y, z)

    assert float(eager[0]) == 0
    np.testing.assert_allclose(to_numpy(compiled[1]), to_numpy(loss(y, z)[1]), rtol=1e-5, atol=1e-7)


@each_loss
def test_networks_on_a_leading_axis_equal_one_at_a_time(loss, xp, rng):
    y, z = draw(loss, rng, networks=(3,))
    weight = rng.uniform(size=4)

    value, dz = compute(xp, loss, y, z, weight)

    for k in range(3):
        one, one_dz = compute(xp, loss, y, z[k], weight)
        np.testing.assert_allclose(value[k], one, rtol=1e-6)
        np.testing.assert_allclose(dz[k], one_dz, rtol=1e-5, atol=1e-7)


@each_loss
def test_weight_two_equals_the_row_twice(loss, xp, rng):
    y, z = draw(loss, rng)

    value, dz = compute(xp, loss, y, z, np.array([2.0, 1.0, 1.0, 0.0]))

    rows = [0, 0, 1, 2]
    expected, twice = compute(xp, loss, y[rows], z[rows])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    expected_dz = np.stack([twice[0] + twice[1], twice[2], twice[3], 0 * twice[3]])
    np.testing.assert_allclose(dz, expected_dz, rtol=1e-5, atol=1e-7)


@each_loss
def test_no_weight_at_all_gives_zero(loss, xp, rng):
    value, dz = compute(xp, loss, *draw(loss, rng), np.zeros(4))

    assert value == 0
    assert np.all(dz == 0)


@each_loss
@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 9.97e36])
def test_weight_zero_shields_from_whatever_the_row_holds(loss, fill, xp, rng):
    y, z = draw(loss, rng)
    weight = np.array([1.0, 0.0, 2.0, 1.0])
    expected, expected_dz = compute(xp, loss, y, z, weight)
    bad_y, bad_z = y.copy(), z.copy()
    bad_z[1] = fill
    if y.ndim == 2:
        bad_y[1] = fill
    else:
        bad_y[1] = -7

    value, dz = compute(xp, loss, bad_y, bad_z, weight)

    assert value == expected
    np.testing.assert_array_equal(dz, expected_dz)
    assert np.all(dz[1] == 0)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
@pytest.mark.parametrize(("ignored", "dtype"), [(-100, "int64"), (-100, "int32"), (255, "uint8")])
def test_ignored_labels_do_not_count(loss, ignored, dtype, xp, rng):
    y, z = draw(loss(), rng)
    labels, loss = np.array([y[0], ignored, y[2], ignored], dtype), loss(ignore_index=ignored)

    value, dz = compute(xp, loss, labels, z)
    weighted, weighted_dz = compute(xp, loss, labels, z, np.array([1.0, 5, 3, 5]))

    expected, expected_dz = compute(xp, loss, y, z, np.array([1.0, 0, 1, 0]))
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(dz, expected_dz)
    expected, expected_dz = compute(xp, loss, y, z, np.array([1.0, 0, 3, 0]))
    np.testing.assert_array_equal(weighted, expected)
    np.testing.assert_array_equal(weighted_dz, expected_dz)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_a_batch_of_ignored_labels_has_no_loss_and_no_gradient(loss, xp, rng):
    _, z = draw(loss(), rng)

    value, dz = compute(xp, loss(), np.full(4, -100), z)

    assert value == 0
    assert np.all(dz == 0)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_check_gives_ignored_labels_the_weight_zero(loss, xp):
    y = xp.asarray(np.array([-100, 2, 1, -100]))

    checked, weight = loss().check(y, (3,), xp.dtype)
    _, given = loss().check(y, (3,), xp.dtype, xp.asarray(np.array([1.0, 0, 5, 1])))

    assert to_numpy(checked).tolist() == [2, 2, 1, 2]  # ignored labels are replaced by a class that occurs
    assert to_numpy(weight).tolist() == [0, 1, 1, 0]
    assert to_numpy(given).tolist() == [0, 0, 5, 0]
    with pytest.raises(ValueError, match=r"not ignore_index=-100.*Received: 2 labels, all ignored or with weight 0"):
        loss().check(y[::3], (3,), xp.dtype)


@pytest.mark.parametrize(
    ("loss", "y", "output_shape"),
    [
        (MeanSquaredError(), [[1.0], [np.nan]], (1,)),
        (MeanSquaredError(), [[1.0], [np.inf]], (1,)),
        (Poisson(), [[1.0], [-1.0]], (1,)),
        (BinaryCrossEntropy(), [[1.0], [np.nan]], (1,)),
        (SoftmaxCrossEntropy(), [[0.5, 0.5], [np.nan, 7.0]], (2,)),
        (SoftmaxCrossEntropy(), [1, 99], (2,)),
        (CategoricalCrossEntropy(), [1, -1], (2,)),
    ],
    ids=repr,
)
def test_check_takes_any_target_of_weight_zero(loss, y, output_shape, xp):
    y = xp.asarray(np.array(y))

    checked, weight = loss.check(y, output_shape, xp.dtype, xp.asarray(np.array([0.5, 0.0])))

    np.testing.assert_array_equal(to_numpy(checked)[1], to_numpy(y)[0])
    assert to_numpy(weight).tolist() == [0.5, 0]
    with pytest.raises(ValueError, match=r"weight|Rescale"):
        loss.check(y, output_shape, xp.dtype, xp.asarray(np.ones(2)))


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize(
    ("z", "label", "expected"),
    [
        ([1.0, 2.0, -np.inf], 0, np.log1p(np.e)),
        ([-np.inf, 0.0, 0.0], 0, np.inf),
        ([3e38, -3e38, 0.0], 0, 0.0),
        ([3e38, -3e38, 0.0], 2, 3e38),
        ([np.inf, 0.0, 1.0], 0, 0.0),
        ([np.inf, np.inf, 1.0], 0, np.log(2)),
        ([-np.inf, -np.inf, -np.inf], 0, np.log(3)),
    ],
)
def test_softmax_cross_entropy_of_logits_without_bounds(z, label, expected, smoothing, xp):
    loss, z = SoftmaxCrossEntropy(smoothing), np.array([z])

    value, dz = compute(xp, loss, np.array([label]), z)
    rows, rows_dz = compute(xp, loss, np.eye(3)[[label]], z)

    p = to_numpy(loss.activation(xp.asarray(z)))
    t = (1 - smoothing) * np.eye(3)[[label]] + smoothing / 3
    if smoothing:  # each class has some of the probability
        with np.errstate(all="ignore"):
            expected = np.sum(t * np.where(z == z.max(), 0, z.max() - z)) + np.log(np.sum(z == z.max()))
            expected = expected + np.log1p(np.exp(-1)) if z[0, 1] == 2 else expected
            expected = np.inf if expected > 3.4e38 else expected
    np.testing.assert_allclose([value, rows], expected, rtol=1e-6)
    np.testing.assert_allclose(dz, p - t, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(rows_dz, p - t, rtol=1e-6, atol=1e-7)
    assert np.sum(p) == pytest.approx(1)


def test_soft_rows_of_logits_far_apart(xp):
    value, _ = compute(xp, losses.softmax_cross_entropy, np.array([[0.9, 0.05, 0.05]]), np.array([[3e38, -3e38, 0]]))

    assert value == pytest.approx(0.05 * 9e38 / 1e0, rel=1e-6)


@pytest.mark.parametrize(("z", "expected"), [(np.inf, [np.inf, 0]), (-np.inf, [0, np.inf]), (3e38, [3e38, 0])])
def test_binary_cross_entropy_of_logits_without_bounds(z, expected, xp):
    for y, loss in zip((0.0, 1.0), expected, strict=True):
        value, dz = compute(xp, losses.binary_cross_entropy, np.array([[y]]), np.array([[z]]))

        assert value == pytest.approx(loss)
        assert dz == (z > 0) - y


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_labels_stand_for_one_hot_rows(loss, xp, rng):
    y, z = draw(loss(), rng)

    for dtype in ("uint8", "int32", "int64"):
        value, dz = compute(xp, loss(), y.astype(dtype), z)

        expected, expected_dz = compute(xp, loss(), np.eye(3)[y], z)
        np.testing.assert_allclose(value, expected, rtol=3e-7)  # two or three roundings of float32
        np.testing.assert_allclose(dz, expected_dz, rtol=3e-7)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if not isinstance(loss, (Poisson, GaussianNLL))], ids=repr)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_extreme_outputs_stay_finite(loss, size, xp):
    z = np.array([[size, -size], [-size, size], [0.0, 0.0], [1.0, 0.0]])
    y = np.array([0, 0, 1, 1]) if isinstance(loss, CLASS_LOSSES) else np.array([[1.0, 1], [1, 1], [0, 0], [0, 0]])

    value, dz = compute(xp, loss, y, z)

    assert np.isfinite(value)
    assert np.all(np.isfinite(dz))


def test_softmax_cross_entropy_by_hand(xp):
    loss, dz = compute(xp, losses.softmax_cross_entropy, np.array([0, 1]), np.log([[1.0, 1, 2], [1, 1, 2]]))

    assert loss == pytest.approx(np.log(4))
    np.testing.assert_allclose(dz, [[-0.375, 0.125, 0.25], [0.125, -0.375, 0.25]], rtol=1e-5)


def test_mean_squared_error_by_hand(xp):
    loss, dz = compute(xp, losses.mean_squared_error, np.array([[1.0], [0], [0], [1]]), np.zeros((4, 1)))

    assert loss == 0.5
    np.testing.assert_array_equal(dz[:, 0], [-0.5, 0, 0, -0.5])


def test_quantile_by_hand(xp):
    loss, dz = compute(xp, Quantile(0.9), np.array([[2.0], [0.0], [1.0]]), np.ones((3, 1)))

    assert loss == pytest.approx((0.9 + 0.1) / 3)
    assert dz[:2, 0] == pytest.approx([-0.9 / 3, 0.1 / 3])


def torch_cases(torch):
    F = torch.nn.functional

    def nll(z, y):
        return F.gaussian_nll_loss(z[:, :3], y, torch.exp(z[:, 3:]))

    return {
        SoftmaxCrossEntropy(): F.cross_entropy,
        SoftmaxCrossEntropy(0.1): lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
        CategoricalCrossEntropy(): lambda z, y: F.nll_loss(torch.log(z), y),
        BinaryCrossEntropy(): F.binary_cross_entropy_with_logits,
        BinaryCrossEntropy(from_logits=False): F.binary_cross_entropy,
        MeanSquaredError(): F.mse_loss,
        MeanAbsoluteError(): F.l1_loss,
        Huber(0.5): lambda z, y: F.huber_loss(z, y, delta=0.5),
        Poisson(): F.poisson_nll_loss,
        Poisson(log_input=False): lambda z, y: F.poisson_nll_loss(z, y, log_input=False, eps=0),
        GaussianNLL(): nll,
    }


def test_value_and_gradient_are_those_of_torch(rng):
    torch = pytest.importorskip("torch")
    for loss, torch_loss in torch_cases(torch).items():
        y, z = draw(loss, rng, batch=5)
        torch_z = torch.tensor(z, requires_grad=True)
        expected = torch_loss(torch_z, torch.tensor(y))
        expected.backward()

        value, dz = loss(y, z)

        np.testing.assert_allclose(value, expected.item(), rtol=1e-12, err_msg=repr(loss))
        np.testing.assert_allclose(dz, torch_z.grad.numpy(), rtol=1e-10, atol=1e-14, err_msg=repr(loss))


def test_activation_maps_outputs_to_predictions(xp):
    z = xp.asarray(np.log([[1.0, 3.0]]))

    def predict(loss):
        return pytest.approx(to_numpy(loss.activation(z))[0])

    assert predict(SoftmaxCrossEntropy()) == [0.25, 0.75]
    assert predict(BinaryCrossEntropy()) == [0.5, 0.75]
    assert predict(Poisson()) == [1, 3]
    assert predict(GaussianNLL()) == [0, 3]
    for loss in (CategoricalCrossEntropy(), BinaryCrossEntropy(False), Poisson(False), MeanSquaredError(), Quantile()):
        assert predict(loss) == [0, np.log(3)]


def test_decide_gives_labels_or_means(xp):
    z = xp.asarray(np.array([[0.2, 0.7], [0.1, -0.3]]))

    def decide(loss, z=z):
        return to_numpy(loss.decide(z)).round(6).tolist()

    assert decide(SoftmaxCrossEntropy()) == [1, 0]
    assert decide(BinaryCrossEntropy()) == [[1, 1], [1, 0]]
    assert decide(BinaryCrossEntropy(from_logits=False)) == [[0, 1], [0, 0]]
    assert decide(BinaryCrossEntropy(), z[:, 1:]) == [[1], [0]]
    assert decide(GaussianNLL()) == pytest.approx(np.array([[0.2], [0.1]]))


@pytest.mark.parametrize(
    ("loss", "y", "output_shape", "expected_shape", "floats"),
    [
        (SoftmaxCrossEntropy(), np.array([0, 2], "uint8"), (3,), (2,), False),
        (SoftmaxCrossEntropy(), np.array([0, 2], "uint16"), (3,), (2,), False),
        (SoftmaxCrossEntropy(), np.array([[0], [2]]), (3,), (2,), False),
        (SoftmaxCrossEntropy(), np.array([[0, 1], [1, 0]]), (2,), (2, 2), True),
        (CategoricalCrossEntropy(), np.array([[0.5, 0.5]]), (2,), (1, 2), True),
        (BinaryCrossEntropy(), np.array([True, False]), (1,), (2, 1), True),
        (BinaryCrossEntropy(), np.array([[1, 0, 0]]), (3,), (1, 3), True),
        (MeanSquaredError(), np.array([1, 2]), (1,), (2, 1), True),
        (Poisson(), np.array([[0, 7]], "int32"), (2,), (1, 2), True),
        (GaussianNLL(), np.array([0.5, 1]), (2,), (2, 1), True),
        (GaussianNLL(), np.zeros((5, 3)), (6,), (5, 3), True),
    ],
)
def test_check_returns_targets_for_the_call(loss, y, output_shape, expected_shape, floats, xp):
    checked, weight = loss.check(xp.asarray(y), output_shape, xp.dtype)

    assert weight is None

    assert checked.shape == expected_shape
    assert (checked.dtype == xp.dtype) is floats
    np.testing.assert_array_equal(to_numpy(checked), y.reshape(expected_shape))
    loss(checked, xp.namespace.ones((len(y), *output_shape), dtype=xp.dtype, device=xp.device))


@pytest.mark.parametrize(
    ("loss", "y", "output_shape", "message"),
    [
        (SoftmaxCrossEntropy(), np.array([1, 3]), (3,), r"0 \.\. 2.*Received: labels from 1 to 3 for 3 classes"),
        (SoftmaxCrossEntropy(), np.array([-1, 2]), (3,), r"Received: labels from -1 to 2"),
        (SoftmaxCrossEntropy(), np.array([0.0, 2.0]), (3,), r"integer labels.*Received: labels of dtype .*float"),
        (SoftmaxCrossEntropy(), np.array([True, False]), (2,), r"integer labels.*Received: labels of dtype .*bool"),
        (SoftmaxCrossEntropy(), np.zeros((2, 4)), (3,), r"Received: targets of shape \(2, 4\)"),
        (SoftmaxCrossEntropy(), np.array([[0.5, 0.6]]), (2,), r"probabilities.*a sum off by 0\.1"),
        (SoftmaxCrossEntropy(), np.array([[1.5, -0.5]]), (2,), r"probabilities.*smallest value of -0\.5"),
        (SoftmaxCrossEntropy(), np.array([[np.nan, 1]]), (2,), r"probabilities.*weight 0.*nan"),
        (
            SoftmaxCrossEntropy(),
            np.array([[0], [1]]),
            (1,),
            r"use binary_cross_entropy. Received: a network with 1 output",
        ),
        (CategoricalCrossEntropy(), np.array([0, 1]), (1,), r"use binary_cross_entropy"),
        (SoftmaxCrossEntropy(), np.array([[1, 1, 0], [0, 0, 0]]), (3,), r"use binary_cross_entropy"),
        (SoftmaxCrossEntropy(), np.array([-1, 2]), (3,), r"-100 \(ignore_index\).*weight 0"),
        (MeanSquaredError(), np.array([0, np.nan]), (1,), r"the weight 0 \(sample_weight\)"),
        (CategoricalCrossEntropy(), np.array([3]), (3,), r"CategoricalCrossEntropy.*Received: labels from 3 to 3"),
        (SoftmaxCrossEntropy(), np.array([0]), (4, 3), r"Flatten.*Received: outputs of shape \(4, 3\)"),
        (MeanSquaredError(), np.zeros((2, 3)), (4, 3), r"Flatten.*Received: outputs of shape \(4, 3\)"),
        (MeanSquaredError(), np.zeros(2), (2,), r"\(n, 2\).*Received: targets of shape \(2,\)"),
        (MeanSquaredError(), np.zeros((2, 1)), (3,), r"\(n, 3\).*Received: targets of shape \(2, 1\)"),
        (Huber(), np.zeros((2, 1, 1)), (1,), r"Received: targets of shape \(2, 1, 1\)"),
        (MeanAbsoluteError(), np.array([0, np.nan]), (1,), r"finite.*Received: NaN or infinity in 1 of 2 targets"),
        (Quantile(), np.array([0, np.inf]), (1,), r"finite.*Received: NaN or infinity in 1 of 2 targets"),
        (BinaryCrossEntropy(), np.array([1, 2]), (1,), r"\[0, 1\].*Received: values from 1 to 2"),
        (BinaryCrossEntropy(), np.array([-1, 1]), (1,), r"\[0, 1\].*Received: values from -1 to 1"),
        (Poisson(), np.array([-1.0, 4]), (1,), r"\[0, inf\].*Received: values from -1 to 4"),
        (GaussianNLL(), np.zeros((2, 2)), (2,), r"\(n, 1\).*Received: targets of shape \(2, 2\)"),
        (GaussianNLL(), np.zeros((2, 1)), (3,), r"2 for each target.*Received: 3"),
    ],
)
def test_check_refuses(loss, y, output_shape, message, xp):
    y = xp.asarray(y)

    with pytest.raises(ValueError, match=f"(?s){message}"):
        loss.check(y, output_shape, xp.dtype)


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy(), SoftmaxCrossEntropy()], ids=repr)
def test_targets_are_never_broadcast(loss, xp):
    y, z = xp.asarray(np.zeros((4, 1))), xp.asarray(np.zeros((4, 2)))

    with pytest.raises(ValueError, match=r"Received: targets of shape \(4, 1\)"):
        loss(y, z)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftmaxCrossEntropy(1.5), lambda: Huber(0), lambda: Quantile(1), lambda: Quantile(float("nan")),
        lambda: BinaryCrossEntropy(from_logits="no"), lambda: Poisson(log_input=0), lambda: SoftmaxCrossEntropy(ignore_index=0.5),
        lambda: CategoricalCrossEntropy(ignore_index=True),
    ],
)  # fmt: skip
def test_settings_are_checked(make):
    with pytest.raises(ValueError, match="Received: "):
        make()


def test_get():
    assert losses.get("softmax_cross_entropy") == SoftmaxCrossEntropy()
    assert losses.get("gaussian_nll") is losses.gaussian_nll
    assert losses.get(Huber(2.0)) == Huber(2.0)
    assert losses.get("mse") is losses.mean_squared_error
    assert losses.get("mae") is losses.mean_absolute_error
    for wrong in ("mean_error", None, Huber):
        with pytest.raises(ValueError, match=r'"softmax_cross_entropy", .*Received: '):
            losses.get(wrong)


def test_shapes_that_do_not_fit_are_refused_in_the_call(xp):
    y, z = xp.asarray(np.ones((3, 1))), xp.asarray(np.zeros((3, 1)))

    with pytest.raises(ValueError, match=r"sample_weight must have shape \(3,\). Received: \(1,\)"):
        losses.mean_squared_error(y, z, xp.asarray(np.ones(1)))
    with pytest.raises(
        ValueError, match=r"Outputs must have shape \(batch, units\). Received: outputs of shape \(3,\)"
    ):
        losses.mean_squared_error(y[:, 0], z[:, 0])


class Own(losses.Loss):
    """A custom loss whose `elements` is the given function."""

    def __init__(self, elements):
        self.returned = elements

    def elements(self, y, z):
        return self.returned(y, z)


@pytest.mark.parametrize(
    ("elements", "received"),
    [
        (lambda y, z: (z - y) ** 2, r"of shape \(2, 1\)$"),
        (lambda y, z: [(z - y) ** 2, 2 * (z - y)], "list"),
        (lambda y, z: (((z - y) ** 2)[:, 0], 2 * (z - y)), r"of shape \(2,\), .* of shape \(2, 1\)$"),
        (lambda y, z: (0.0, 2 * (z - y)), r"float of shape \(\), "),
        (lambda y, z: ((z - y) ** 2, (2 * (z - y))[:1, :]), r"of shape \(1, 1\)$"),
        (lambda y, z: (z - y,) * 2, "one array twice"),
        (lambda y, z: (z * z, z), "z itself"),
    ],
)
def test_elements_that_break_the_protocol_are_refused(xp, elements, received):
    y, z = xp.asarray([[1.0], [2.0]]), xp.asarray([[0.0], [4.0]])

    with pytest.raises(
        ValueError, match=r"Own\.elements must return a tuple of two new arrays.*Received: .*" + received
    ):
        Own(elements)(y, z)


@pytest.mark.parametrize("networks", [(), (2,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_by_index_and_by_mask_give_the_same_bits(networks, dtype, rng):
    """Only NumPy reads the label's class by its index. With ignore_index, a label may be out of range, so the mask is used."""
    xp = make_backend("numpy")
    z = xp.asarray(rng.normal(size=(*networks, 200, 30)).astype(np.float32) * 10)
    z[..., 3, :5], z[..., 4, 7], z[..., 5, 2] = -np.inf, np.inf, np.nan
    y = rng.integers(0, 30, 200).astype(dtype)
    by_index, by_mask = (SoftmaxCrossEntropy(ignore_index=ignored)(y, z) for ignored in (None, 10**6))

    for one, other in zip(by_index, by_mask, strict=True):
        np.testing.assert_array_equal(one, other)
