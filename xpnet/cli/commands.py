"""The commands: each function takes the parsed arguments and prints its result."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import optimizers, tensorfile
from xpnet.backend import make_backend, to_numpy
from xpnet.checks import unknown_name
from xpnet.cli import data, network
from xpnet.files import replacing
from xpnet.model import Model


def train(options: Any) -> None:
    rank = xpnet.distributed.init().rank if options.distributed else 0
    with redirect_stdout(io.StringIO() if rank else sys.stdout):
        _train(options, rank)


def _train(options: Any, rank: int) -> None:
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume continues from a checkpoint. Pass --checkpoint FILE too. Received: --resume alone")
    if options.checkpoint is not None and options.checkpoint.resolve() == options.out.resolve():
        raise ValueError(f"--checkpoint and --out must be different files. Received: {options.out} for both")
    chosen, optimizer, backend = network.parse(options.network), _optimizer(options), _backend(options)
    samples, held_out = data.read(options.data, options)
    if options.validation is not None:
        held_out = data.read(options.validation, options)[0]
    x, y = samples.x, samples.y
    assert y is not None
    classes = not options.numbers and y.dtype.kind in "iu"
    scale = 1 / 16 if options.data == "digits" else 1 / 255 if x.dtype == np.uint8 else 1.0
    if options.scale is not None:
        scale = options.scale
    model = Model(
        network.prepared(chosen, x.shape[1:], scale),
        options.loss or ("softmax_cross_entropy" if classes else "mean_squared_error"),
        optimizer,
        options.metrics if options.metrics is not None else ["accuracy"] if classes else [],
        seed=options.seed,
        backend=backend,
    )
    model.class_names = tuple(samples.class_names)
    print(f"{backend}: {len(x):,} samples of shape {x.shape[1:]}")
    model.summary(x.shape[1:])
    callbacks, resume_from = [], None
    if options.checkpoint is not None:
        literal = str(options.checkpoint).replace("{", "{{").replace("}", "}}")  # one file, which --resume finds
        callbacks.append(xpnet.callbacks.ModelCheckpoint(literal))
        if options.resume and options.checkpoint.exists():
            resume_from = options.checkpoint
            print(f"Continuing from {resume_from}.")
    history = model.fit(
        x,
        y,
        options.batch_size,
        options.epochs,
        validation_split=options.validation_split,
        validation_data=None if held_out is None or options.validation_split else (held_out.x, held_out.y),
        callbacks=callbacks,
        resume_from=resume_from,
        micro_batch_size=options.micro_batch_size,
    )
    if rank:
        return
    model.save(options.out)
    print(f"Saved {options.out}.")
    if options.history is not None:
        _write(options.history, json.dumps(history.history | {"epoch": history.epoch}, indent=1))


def evaluate(options: Any) -> None:
    model = _load(options)
    first, second = data.read(options.data, options)
    part = second or first
    values = model.evaluate(part.x, part.y, return_dict=True)
    if options.json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            print(f"{name}: {value:.6g}" if isinstance(value, float) else f"{name}: {value}")


def predict(options: Any) -> None:
    model = _load(options)
    first, second = data.read(options.data, options, labeled=False)
    part = second or first
    table = _answers(model, part)
    if options.out is not None and options.out.suffix.lower() == ".json":
        text = json.dumps(table, indent=1) + "\n"
    else:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, table[0])
        writer.writeheader()
        writer.writerows(table)
        text = stream.getvalue()
    if options.out is None:
        sys.stdout.write(text)
    else:
        _write(options.out, text)


def _answers(model: Model, samples: data.Samples) -> list[dict[str, Any]]:
    """One row for each sample: its name or number, its class, and the probabilities or values."""
    answers = to_numpy(model.predict(samples.x)).astype(float)
    answers = answers.reshape(len(answers), -1)
    names = list(model.class_names) or [str(unit) for unit in range(answers.shape[1])]
    table: list[dict[str, Any]] = [{"sample": row} for row in samples.rows or range(len(answers))]
    if model.loss.of_classes:
        labels = to_numpy(model.predict_classes(samples.x)).reshape(len(answers), -1)
        if labels.shape[1] == 1:
            for row, (label,) in zip(table, labels.tolist(), strict=True):
                row["class"] = names[label] if label < len(names) else str(label)
    columns = [f"p({name})" for name in names] if model.loss.of_classes else names
    if answers.shape[1] == 1:
        columns = ["probability" if model.loss.of_classes else "prediction"]
    for row, values in zip(table, answers.tolist(), strict=True):
        row |= dict(zip(columns, values, strict=True))
    return table


def info(options: Any) -> None:
    with tensorfile.errors_named(options.model):
        file = tensorfile.read(options.model)
    if options.json:
        print(json.dumps(file.description, indent=1))
        return
    model = xpnet.load_model(options.model, "numpy")
    print(f"{options.model}: written by xpnet {file.description['xpnet']}, {file.description['dtype']}")
    print(f"loss: {model.loss}")
    print(f"optimizer: {model.optimizer}")
    print(f"metrics: {', '.join(metric.name for metric in model.metrics) or 'none'}")
    print(f"training: {model.epoch} epochs, {model.step} steps, seed {model.seed}")
    if model.class_names:
        print(f"classes: {', '.join(model.class_names)}")
    for name, values in model.history.history.items():
        print(f"last {name}: {values[-1]}")
    model.summary()


def export(options: Any) -> None:
    xpnet.interchange.save_onnx(xpnet.load_model(options.model, "numpy"), options.out)
    print(f"Wrote {options.out}.")


def backends(options: Any) -> None:
    for name, reason in xpnet.available_backends().items():
        print(f"{name:16} {reason}")


def fetch(options: Any) -> None:
    if not options.names:
        print("\n".join(data.NAMED))
    for name in options.names:
        if name not in data.NAMED:
            raise unknown_name("A data set must be one of", name, data.NAMED)
    for name in options.names:
        train, test = data.named(name, options.data_dir)
        height, width = train.x.shape[1:]
        print(f"{name}: {len(train.x):,} + {len(test.x):,} images of {height}x{width}, verified")


def _backend(options: Any) -> xpnet.Backend:
    given = {name: getattr(options, name) for name in ("device", "dtype", "threads")}
    chosen = {name: value for name, value in given.items() if value is not None}
    name = options.backend or os.environ.get("XPNET_BACKEND") or "numpy"
    return make_backend(name, **chosen)


def _load(options: Any) -> Model:
    return xpnet.load_model(options.model, _backend(options))


def _optimizer(options: Any) -> xpnet.optimizers.Optimizer:
    optimizer = optimizers.get(options.optimizer)
    return optimizer if options.learning_rate is None else replace(optimizer, learning_rate=options.learning_rate)


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
    print(f"Wrote {path}.")
