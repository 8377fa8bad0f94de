"""L-BFGS in the Array API, for backends whose arrays SciPy cannot use.

J. Nocedal and S. Wright, "Numerical Optimization", 2nd edition (2006), algorithms 3.5, 3.6, 7.4 and 7.5. Only the value of the
function and the slope along the search direction come to the host, which decides; all vectors stay on the device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from scipy.optimize import OptimizeResult

from xpnet.backend import namespace
from xpnet.tree import Array

MEMORY = 10  # pairs (s, y)
FTOL = 2.220446049250313e-09  # as SciPy's L-BFGS-B
C1, C2 = 1e-4, 0.9  # of the strong Wolfe conditions
TRIALS = 20  # evaluations in one line search, as in SciPy's L-BFGS-B

Function = Callable[[Array], tuple[Array, Array]]


def minimize(function: Function, x: Array, *, max_iter: int, max_fun: int, gtol: float) -> OptimizeResult:
    """Minimize ``value, gradient = function(x)`` over flat arrays, from `x`.

    It stops where max |gradient| <= gtol, or where the value falls by less than 2·10⁻⁹ of itself, or after `max_iter`
    iterations or `max_fun` evaluations.

    Returns
    -------
    OptimizeResult
        With the attributes, codes and messages of SciPy's L-BFGS-B.
    """
    count = 0

    def evaluate(x: Array) -> tuple[float, Array]:
        nonlocal count
        count += 1
        value, gradient = function(x)
        return float(value), gradient

    f, g = evaluate(x)
    pairs: deque[tuple[Array, Array, float]] = deque(maxlen=MEMORY)
    iterations, status, message = 0, 1, "STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT"
    while True:
        if _largest(g) <= gtol:
            status, message = 0, "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL"
            break
        if iterations >= max_iter:
            break
        if count >= max_fun:
            message = "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT"
            break
        d = _direction(g, pairs)
        step = 1.0 if pairs else min(1.0, 1.0 / max(_dot(g, g) ** 0.5, 1e-300))
        found = _line_search(evaluate, x, f, g, d, step)
        if found is None:
            if not pairs:
                status, message = 2, "ABNORMAL: "
                break
            pairs.clear()  # try again along the gradient
            continue
        new_x, new_f, new_g = found
        s, y = new_x - x, new_g - g
        if (sy := _dot(s, y)) > 1e-10 * _dot(y, y):  # otherwise the pair would spoil the curvature
            pairs.append((s, y, sy))
        decrease = (f - new_f) / max(abs(f), abs(new_f), 1.0)
        x, f, g = new_x, new_f, new_g
        iterations += 1
        if decrease <= FTOL:
            status, message = 0, "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH"
            break
    return OptimizeResult(
        x=x, fun=f, jac=g, nit=iterations, nfev=count, status=status, success=status == 0, message=message
    )


def _direction(g: Array, pairs: deque[tuple[Array, Array, float]]) -> Array:
    """Return -H g by the two-loop recursion, algorithm 7.4, with H₀ = sᵀy / yᵀy of the last pair."""
    q, alphas = -g, []
    for s, y, sy in reversed(pairs):
        alpha = _dot(s, q) / sy
        q = q - alpha * y
        alphas.append(alpha)
    if pairs:
        _, y, sy = pairs[-1]
        q = q * (sy / _dot(y, y))
    for (s, y, sy), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + (alpha - _dot(y, q) / sy) * s
    return q


def _line_search(evaluate: Any, x: Array, f: float, g: Array, d: Array, step: float) -> Any:
    """Find a step that satisfies the strong Wolfe conditions, algorithm 3.5. Return (x, f, g) there, or None."""
    slope = _dot(g, d)
    if not slope < 0:
        return None
    low, f_low, slope_low = 0.0, f, slope
    high: float | None = None
    f_high = math.inf
    best = None  # a point with a sufficient decrease, in case the curvature condition cannot be met
    for _ in range(TRIALS):
        new_x = x + step * d
        new_f, new_g = evaluate(new_x)
        new_slope = _dot(new_g, d)
        if not math.isfinite(new_f) or new_f > f + C1 * step * slope or (low and new_f >= f_low):
            high, f_high = step, new_f
        else:
            best = new_x, new_f, new_g
            if abs(new_slope) <= -C2 * slope:
                return best
            if new_slope * ((high if high is not None else math.inf) - low) >= 0:
                high, f_high = low, f_low
            low, f_low, slope_low = step, new_f, new_slope
        step = 4.0 * step if high is None else _between(low, f_low, slope_low, high, f_high)
    return best


def _between(low: float, f_low: float, slope_low: float, high: float, f_high: float) -> float:
    """Return the minimum of the parabola through both ends (p. 58), but not within a tenth of an end."""
    width = high - low
    curvature = f_high - f_low - slope_low * width
    share = -0.5 * slope_low * width / curvature if math.isfinite(curvature) and curvature > 0 else 0.5
    return low + min(max(share, 0.1), 0.9) * width


def _dot(a: Array, b: Array) -> float:
    return float(a @ b)


def _largest(g: Array) -> float:
    xp = namespace(g)
    return float(xp.max(xp.abs(g)))
