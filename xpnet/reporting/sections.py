"""One page about a trained model: settings, data, curves, mistakes, calibration, layers, cost, and what a repetition needs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import inspection, plotting
from xpnet.backend import in_scope, show_versions, to_numpy
from xpnet.checks import require_one_network
from xpnet.files import StrPath, as_path, replacing
from xpnet.history import History
from xpnet.plotting import figures
from xpnet.reporting.page import Page
from xpnet.tables import Table

SHOWN = 20  # samples in a figure
STATISTICS = 512  # samples for the statistics of layers


@in_scope
def report(
    model: Any, x: Any, y: Any, out: StrPath = "report.html", *, history: History | None = None,
    class_names: Sequence[Any] | None = None, title: str = "Training report",
) -> Path:  # fmt: skip
    """Write a self-contained page about a trained model and its predictions for test data.

    Parameters
    ----------
    model : Model
        A built model with one seed.
    x, y : array
        Test data, in the form that `evaluate` accepts.
    out : path-like, default "report.html"
    history : History, optional
        The default is the last one of the model.
    class_names : sequence, optional
        The default is ``model.class_names``, or 0, 1, 2, ...
    title : str, optional

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ImportError
        matplotlib (the extra ``plot``) or scikit-learn (the extra ``sklearn``) is not installed.
    ValueError
        The data or the class names do not fit the model, or it has several seeds.
    """
    path, (samples, targets) = as_path(out, "out"), (to_numpy(model.backend.asarray(array)) for array in (x, y))
    require_one_network("report", model)
    begin = time.perf_counter()
    results = model.evaluate(x, y, return_dict=True)
    seconds = time.perf_counter() - begin
    page = Page()
    page.section("Settings")
    page.table(model.summary(print_fn=lambda text: None).table)
    page.pairs(_settings(model))
    page.section("Data")
    page.pairs(_data("x", samples) + _data("y", targets))
    past = model.history if history is None else history
    if past.epoch:
        page.section("Training")
        page.pairs([(name, repr(value)) for name, value in past.params.items()])
        names = [name for name, values in past.history.items() if isinstance(values[-1], float | int)]
        for name in [name for name in names if not name.startswith("val_") and name != "learning_rate"][:4]:
            page.figure(f"{name} by epoch", functools.partial(plotting.learning_curves, past, name))
        page.details("All epochs", past.table)
    page.section("Results on these data")
    page.pairs([(name, _number(value)) for name, value in results.items()])
    if model.loss.of_classes and targets.ndim < 3:
        _classes(page, model, samples, targets, class_names)
    elif targets.ndim < 3:
        _values(page, model, samples, targets)
    page.section("Layers")
    _weights(page, model)
    part = slice(0, STATISTICS)
    page.figure(
        "activations and gradients of each layer",
        lambda: plotting.layer_statistics(inspection.layer_statistics(model, samples[part], targets[part])),
    )
    page.section("Time and memory")
    page.pairs(_cost(model, samples, seconds))
    page.section("To repeat the run")
    versions = io.StringIO()
    with contextlib.redirect_stdout(versions):
        show_versions()
    page.listing(versions.getvalue())
    with replacing(path) as file:
        file.write(page.html(title, repr(model)).encode("utf-8"))
    return path


def _settings(model: Any) -> list[tuple[str, str]]:
    layers = "\n".join(map(repr, model.network.layers))
    return [
        ("layers", layers), ("loss", repr(model.loss)), ("optimizer", repr(model.optimizer)), ("metrics", repr(model.metrics)),
        ("seed", repr(model.seed)), ("backend", repr(model.backend)), ("epochs", str(model.epoch)), ("steps", str(model.step)),
    ]  # fmt: skip


def _data(name: str, array: np.ndarray) -> list[tuple[str, str]]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    rows = [(f"{name}", f"{array.dtype} of shape {array.shape}")]
    if array.dtype.kind in "fiub":
        values = array.astype(float)
        rows.append(
            (
                f"{name}: values",
                f"{values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g}, std {values.std():.6g}",
            )
        )
    return [*rows, (f"{name}: SHA-256", digest)]


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else str(np.round(np.asarray(value), 4).tolist())


def _classes(page: Page, model: Any, x: np.ndarray, y: np.ndarray, class_names: Sequence[Any] | None) -> None:
    p = to_numpy(model.predict(x)).reshape(len(x), -1)
    if p.shape[1] == 1:
        p = np.concatenate([1 - p, p], axis=1)
    elif model.loss.outputs_per_target == 1 and y.ndim == 2 and np.any(y.sum(axis=1) > 1):
        return  # several labels for a sample
    labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    kept = (labels >= 0) & (labels < p.shape[1])  # the loss may ignore labels
    x, p, labels = x[kept], p[kept], labels[kept].astype(int)
    names = figures.names_of_classes(class_names if class_names is not None else model.class_names or range(p.shape[1]))
    if len(names) != p.shape[1]:
        raise ValueError(f"class_names must hold {p.shape[1]} names, one for each class. Received: {names}")
    predicted, probability = p.argmax(axis=1), p.max(axis=1)
    page.section("Classes")
    page.table(_class_table(labels, predicted, names))
    names = [_short(name) for name in names]
    page.figure("confusion matrix", lambda: plotting.confusion_matrix(labels, predicted, class_names=names))
    page.section("Calibration")
    page.figure("calibration curve", lambda: plotting.calibration(labels, p))
    wrong = np.flatnonzero(predicted != labels)
    page.section("Worst mistakes")
    page.text(f"{len(wrong):,} of {len(labels):,} predictions are wrong. These have the largest probability.")
    _samples(page, "worst mistakes", x, labels, p, names, wrong[np.argsort(-probability[wrong], kind="stable")])
    page.section("Most uncertain predictions")
    _samples(page, "most uncertain predictions", x, labels, p, names, np.argsort(probability, kind="stable"))


def _short(name: str) -> str:
    """Return a name that fits into a figure, where a dollar sign would begin a formula."""
    return (name if len(name) <= 16 else f"{name[:15]}…").replace("$", r"\$")


def _class_table(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Table:
    rows = []
    for k, name in enumerate(names):
        hits = int(np.sum((predicted == k) & (labels == k)))
        said, are = int(np.sum(predicted == k)), int(np.sum(labels == k))
        precision, recall = hits / said if said else math.nan, hits / are if are else math.nan
        f1 = 2 * hits / (said + are) if said + are else math.nan
        rows.append((name, *(f"{value:.4f}" for value in (precision, recall, f1)), f"{are:,}"))
    header = ("class", "precision", "recall", "F1", "samples")
    return Table(header, rows, right="precision recall F1 samples")


def _samples(
    page: Page,
    description: str,
    x: np.ndarray,
    labels: np.ndarray,
    p: np.ndarray,
    names: Sequence[str],
    order: np.ndarray,
) -> None:
    """Show samples as images if they are images, and otherwise as rows of a table."""
    chosen = order[:SHOWN]
    if not len(chosen):
        return
    said = p.argmax(axis=1)
    images = _images(x[chosen])
    if images is not None:
        titles = [f"{names[said[i]]} {p[i].max():.0%}\ntrue: {names[labels[i]]}" for i in chosen]
        page.figure(description, lambda: plotting.image_grid(images, titles))
        return
    rows = [
        (
            str(i),
            names[labels[i]],
            names[said[i]],
            f"{p[i].max():.4f}",
            np.array2string(x[i].reshape(-1)[:6], precision=4),
        )
        for i in chosen
    ]
    page.table(Table(("sample", "true", "predicted", "probability", "first values"), rows, right="sample probability"))


def _images(x: np.ndarray) -> np.ndarray | None:
    if (x.ndim == 3 and min(x.shape[1:]) >= 7) or (x.ndim == 4 and x.shape[-1] in (1, 3)):
        return x
    side = math.isqrt(math.prod(x.shape[1:]))
    return x.reshape(-1, side, side) if x.ndim == 2 and side * side == x.shape[1] and side >= 7 else None


def _values(page: Page, model: Any, x: np.ndarray, y: np.ndarray) -> None:
    p, t = (np.asarray(values, float).reshape(len(x), -1) for values in (to_numpy(model.predict(x)), y))
    page.section("Predictions")
    page.figure("predicted and true values", lambda: _scatter(t, p))
    error = np.abs(p - t).max(axis=1)
    chosen = np.argsort(-error, kind="stable")[:SHOWN]
    rows = [(str(i), *(np.array2string(v, precision=4) for v in (t[i], p[i])), f"{error[i]:.4g}") for i in chosen]
    page.section("Largest errors")
    page.table(Table(("sample", "true", "predicted", "error"), rows, right="sample error"))


def _scatter(t: np.ndarray, p: np.ndarray) -> Any:
    ax = figures.one_panel(None, 4.6, 4.2)
    ends = [min(t.min(), p.min()), max(t.max(), p.max())]
    ax.plot(ends, ends, color=figures.GRAY, linestyle="--", linewidth=1)
    ax.scatter(t, p, s=10, color=figures.BLUE, alpha=0.6, linewidth=0)
    ax.set(xlabel="True", ylabel="Predicted")
    figures.tidy(ax, "both")
    return ax


def _weights(page: Page, model: Any) -> None:
    """Show the weights of the first layer that has some, if they belong to pixels."""
    weight = next((to_numpy(p["weight"]) for p in model.parameters if isinstance(p, dict) and "weight" in p), None)
    if weight is None:
        return
    side = math.isqrt(weight.shape[0])
    height, width = weight.shape[:2] if weight.ndim == 4 else (side, side)
    if weight.ndim == 4 or (weight.ndim == 2 and side >= 7 and side * side == weight.shape[0]):
        units = weight.reshape(height * width, -1)[:, :25]
        page.figure("weights of the first layer", lambda: plotting.weight_images(units, (height, width)))


def _cost(model: Any, x: np.ndarray, seconds: float) -> list[tuple[str, str]]:
    size = sum(array.nbytes for array in model.get_weights())
    rows = [
        ("evaluation of these data", f"{seconds:.3g} s, {1e6 * seconds / len(x):.3g} µs for each sample"),
        ("parameters and running statistics", f"{size:,} bytes"),
    ]
    with contextlib.suppress(ImportError):  # only on Unix
        resource = importlib.import_module("resource")
        rows.append(
            ("peak memory of the process", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        )
    return rows
