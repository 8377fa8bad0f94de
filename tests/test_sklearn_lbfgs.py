"""The objective of L-BFGS, and the minimizer for backends without SciPy."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from scipy import optimize
from sklearn.datasets import load_iris

from xpnet.optimizers import SGD
from xpnet.sklearn import MLPClassifier, MLPRegressor
from xpnet.sklearn.engine import pack, unpack
from xpnet.sklearn.lbfgs import minimize
from xpnet.sklearn.step import Objective


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("estimator", [MLPClassifier(), MLPRegressor(loss="poisson"), MLPRegressor()])
def test_the_gradient_is_the_derivative(estimator, activation, xp64, rng):
    X, y = load_iris(return_X_y=True)
    weight = rng.uniform(0.5, 2.0, size=len(y))
    model = estimator.set_params(
        activation=activation, hidden_layer_sizes=(4,), max_iter=1, alpha=0.5, random_state=1, backend=xp64
    ).fit(X, y)
    targets = model._targets(model._validate_input(X, y, True, False)[1].reshape(len(y), -1), np.float64)
    engine = model._engine(X, np.float64)
    arrays = model._arrays(engine.backend)
    batch = {"x": xp64.asarray(X), "y": xp64.asarray(targets), "weight": xp64.asarray(weight)}
    objective = Objective(engine.step(SGD(), model.alpha))

    def value(flat):
        loss, grads = objective(arrays | {"params": unpack(arrays["params"], xp64.asarray(flat))}, batch)
        return float(loss), np.array(xp64.to_host(pack(xp64, grads)))

    flat = np.array(xp64.to_host(pack(xp64, arrays["params"])))
    numerical = optimize.approx_fprime(flat, lambda p: value(p)[0], 1e-7)
    np.testing.assert_allclose(value(flat)[1], numerical, rtol=1e-4, atol=1e-5)


def rosenbrock(xp):
    n = xp.namespace

    def function(x):
        a, b = x[:-1], x[1:]
        value = n.sum(100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2)
        inner = n.concat((-400.0 * a * (b - a * a) - 2.0 * (1.0 - a), 0.0 * b[:1]))
        return value, inner + n.concat((0.0 * a[:1], 200.0 * (b - a * a)))

    return function


def test_it_finds_the_minimum(xp64):
    x = xp64.asarray(np.full(10, -1.2))
    result = minimize(rosenbrock(xp64), x, max_iter=500, max_fun=1000, gtol=1e-8)

    np.testing.assert_allclose(xp64.to_host(result.x), 1.0, rtol=1e-4)
    assert result.success
    assert result.nfev < 150  # SciPy needs about 80
    assert result.fun < 1e-9


@pytest.mark.parametrize(
    ("limits", "message", "counts"),
    [
        ({"max_iter": 3, "max_fun": 1000, "gtol": 1e-8}, "STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT", ("nit", 3)),
        ({"max_iter": 500, "max_fun": 7, "gtol": 1e-8}, "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT", None),
        (
            {"max_iter": 500, "max_fun": 1000, "gtol": 1e9},
            "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL",
            ("nit", 0),
        ),
    ],
)
def test_why_it_stops(limits, message, counts, xp64):
    start = np.full(10, -1.2)
    result = minimize(rosenbrock(xp64), xp64.asarray(start), **limits)
    options = {"maxiter": limits["max_iter"], "maxfun": limits["max_fun"], "gtol": limits["gtol"]}
    scipy = optimize.minimize(optimize.rosen, start, jac=optimize.rosen_der, method="L-BFGS-B", options=options)

    assert result.message == message
    assert (result.status, result.success) == (scipy.status, scipy.success)
    if counts:
        assert result[counts[0]] == scipy[counts[0]] == counts[1]


def test_a_function_without_a_minimum_ends(xp64):
    result = minimize(lambda x: (x @ x * float("nan"), x), xp64.asarray(np.ones(3)), max_iter=5, max_fun=50, gtol=1e-5)

    assert result.status == 2
    np.testing.assert_array_equal(xp64.to_host(result.x), np.ones(3))
