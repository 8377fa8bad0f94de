"""The HTML file: a template, a style sheet and two scripts of this package, and the model's data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend import in_scope, to_numpy
from xpnet.checks import require, require_choice, require_labels
from xpnet.files import StrPath, as_path, replacing
from xpnet.layers import Rescaling
from xpnet.playground.network import describe, encoded

MISTAKES, EXAMPLES = 60, 20  # samples in the file, at most
FEATURES = 64  # the most features that a reader can type


@in_scope
def playground(
    model: Any, path: StrPath, x: Any = None, y: Any = None, *, class_names: Sequence[Any] | None = None,
    precision: str = "float32", title: str = "A neural network in your browser",
) -> Path:  # fmt: skip
    """Write a page, without server or network, to draw digits and step through backpropagation in a trained network.

    Parameters
    ----------
    model : Model
        A built model of gray images or of at most 64 features, with the layers that docs/playground.md lists.
    path : path-like
        The HTML file. The network is in it.
    x, y : array, optional
        Test samples and labels. The page has the first 20, and up to 60 that the network gets wrong. The largest number in x
        is the value of ink; without x, it is what a first `Rescaling` maps to 1, or 1.
    class_names : sequence, optional
        The default is ``model.class_names``, or 0, 1, 2, ...
    precision : {"float32", "float16"}, default "float32"
        The type of the weights in the file.
    title : str, optional

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        The page cannot compute a layer or the loss, or an argument does not fit. The message names it.
    """
    path = as_path(path)
    require_choice("precision", precision, "float32", "float16")
    network = describe(model, lambda array: encoded(array, precision))
    sizes = [math.prod(array["shape"]) for layer in network["layers"] for array in layer["arrays"].values()]
    if precision == "float16" and not _fits(model):
        raise ValueError('Weights above 65504 do not fit into float16. Use precision="float32". Received: float16')
    picture = _picture(model.input_shape)
    samples, labels = _samples(model, x, y)
    largest = float(np.max(samples)) if samples is not None else 0.0
    data = network | {
        "title": title,
        "picture": picture,
        "features": model.input_shape[0] if picture is None else None,
        "ink": largest or _ink(model),
        "classes": _class_names(model, network, class_names),
        "precision": precision,
        "parameters": sum(sizes),
        "weightBytes": sum(sizes) * np.dtype(precision).itemsize,
        "rate": 0.1,
    }
    if samples is not None:
        data |= _chosen(model, samples, labels)
    folder = files("xpnet.playground")
    page = (folder / "page.html").read_text(encoding="utf-8")
    for name in ("page.css", "network.js", "page.js"):
        page = page.replace(f"/* {name} */", (folder / name).read_text(encoding="utf-8"))
    values = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # so that no text can end the script element
    page = page.replace("{{title}}", escape(title)).replace("{{data}}", values)
    with replacing(path) as file:
        file.write(page.encode("utf-8"))
    return path


def _fits(model: Any) -> bool:
    return all(np.all(np.abs(array) <= 65504) for array in model.get_weights())


def _picture(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return height and width if the samples are gray images, or None for a few features."""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return shape[0], shape[1]
    side = math.isqrt(math.prod(shape))
    if len(shape) == 1 and side * side == shape[0] and side >= 7:
        return side, side
    if len(shape) == 1 and shape[0] <= FEATURES:
        return None
    raise ValueError(
        f"playground needs gray images, (height, width) or (height, width, 1), square images as rows, or at most {FEATURES} "
        f"features. Received: samples of shape {shape}"
    )


def _ink(model: Any) -> float:
    """Return the value of a pixel full of ink: that which a Rescaling at the beginning maps to 1, or 1."""
    first = model.network.layers[0]
    return 1 / first.scale if isinstance(first, Rescaling) and first.scale > 0 else 1.0


def _class_names(model: Any, network: dict[str, Any], class_names: Sequence[Any] | None) -> list[str]:
    outputs = network["layers"][-1]["output"][-1]
    count = 2 if network["output"] == "sigmoid" and outputs == 1 else outputs
    names = [str(name) for name in (class_names if class_names is not None else model.class_names or range(count))]
    if len(names) != count:
        raise ValueError(f"class_names must hold {count} names, one for each output. Received: {names}")
    return names


def _samples(model: Any, x: Any, y: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return samples and labels on the host. Samples keep the values of x."""
    if x is None:
        if y is not None:
            raise ValueError("y needs the samples x that it belongs to. Received: x=None")
        return None, None
    samples = to_numpy(model.backend.asarray(x))
    if tuple(samples.shape[1:]) != tuple(model.input_shape):
        raise ValueError(f"x must have samples of shape {model.input_shape}. Received: x of shape {samples.shape}")
    require(len(samples) > 0, "x must hold at least one sample", f"x of shape {samples.shape}")
    if y is None:
        return samples, None
    labels = to_numpy(model.backend.asarray(y))
    if labels.ndim == 2:
        labels = labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
    if labels.shape != samples.shape[:1]:
        raise ValueError(f"y must hold a label for each sample of x. Received: y of shape {labels.shape}")
    return samples, labels


def _chosen(model: Any, samples: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Return a few samples, and those whose prediction is wrong, most confident first."""
    wrong, tested = np.zeros(0, int), 0
    p = to_numpy(model.predict(samples)).reshape(len(samples), -1)
    if labels is not None and (model.loss.of_classes or p.shape[1] > 1):
        require_labels(labels, len(samples), max(p.shape[1], 2))
        predicted = p.argmax(axis=1) if p.shape[1] > 1 else p[:, 0] > 0.5
        wrong, tested = np.flatnonzero(predicted != labels), len(samples)
        wrong = wrong[np.argsort(-np.abs(p[wrong] - 0.5).max(axis=1), kind="stable")]
    chosen = np.concatenate([np.arange(min(EXAMPLES, len(samples))), wrong[:MISTAKES]])
    dtype = "uint8" if samples.dtype == np.uint8 else "float32"
    return {
        "samples": encoded(samples[chosen].reshape(len(chosen), -1), dtype),
        "labels": None if labels is None else [float(label) for label in labels[chosen]],
        "examples": min(EXAMPLES, len(samples)),
        "mistakes": len(wrong),
        "tested": tested,
    }
