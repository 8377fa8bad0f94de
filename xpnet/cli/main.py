"""The arguments of the command line, and the output of errors."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import xpnet
from xpnet.checks import number
from xpnet.cli import commands, data
from xpnet.groups import Alone, process

EXAMPLES = """examples:
  xpnet train mnist --network dense:128,relu,dropout:0.2,dense:10 --epochs 5 --out digits.safetensors
  xpnet evaluate digits.safetensors mnist
  xpnet predict digits.safetensors photos/ --out answers.csv
  xpnet info digits.safetensors

Exit codes: 0 success, 1 an error in the data, a file or the training, 2 wrong arguments, 130 Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    options = parser().parse_args(arguments)
    log, handler = logging.getLogger("xpnet"), logging.StreamHandler()  # downloads, and the choice of a backend
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        options.run(options)
    except KeyboardInterrupt:
        if process().rank == 0:
            print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if options.debug:
            raise
        text = data.in_options(" ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", [])]))
        message = f"xpnet: error: {' '.join(text.split())}"
        if not isinstance(ranks := process(), Alone):
            ranks.exchange.end(error, message)
        print(message, file=sys.stderr)
        return 1
    finally:
        log.removeHandler(handler)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser, with one subparser for each command."""
    form = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(
        "xpnet", description="Train and use neural networks.", epilog=EXAMPLES, formatter_class=form
    )
    whole.add_argument("--version", action="version", version=f"xpnet {xpnet.__version__}")
    commands_of = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        one = commands_of.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=form)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        one.set_defaults(run=run)
        return one

    _train(command("train", commands.train, "train a network on data and save it"))
    evaluate = command("evaluate", commands.evaluate, "compute the loss and the metrics of a model on data")
    evaluate.add_argument("model", metavar="MODEL", help="a file written by xpnet train or Model.save")
    _data(evaluate)
    _backend(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print the values as JSON")
    predict = command("predict", commands.predict, "predict the targets of data without targets")
    predict.add_argument("model", metavar="MODEL", help="a file written by xpnet train or Model.save")
    _data(predict)
    _backend(predict)
    predict.add_argument(
        "--out", type=_table, metavar="FILE", help="a .csv or .json file; default: CSV on the terminal"
    )
    info = command("info", commands.info, "describe a model file")
    info.add_argument("model", metavar="MODEL")
    info.add_argument(
        "--json", action="store_true", help="print the file's description, which --network accepts as a file"
    )
    export = command("export", commands.export, "write a model as an ONNX file")
    export.add_argument("model", metavar="MODEL")
    export.add_argument("out", type=_writable, metavar="FILE.onnx")
    command("backends", commands.backends, "list the backends and whether this machine can use them")
    fetch = command("data", commands.fetch, "download data sets and verify their checksums")
    fetch.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(data.NAMED[:3])}; default: list them")
    fetch.add_argument("--data-dir", metavar="DIR", help="a folder to search before the cache")
    return whole


def _train(train: argparse.ArgumentParser) -> None:
    _data(train)
    network = train.add_argument_group("network and training")
    network.add_argument(
        "--network",
        required=True,
        metavar="SPEC",
        help="layers such as dense:128,relu,dropout:0.2,dense:10 or conv2d:32:3:padding=same,relu,maxpooling2d:2,flatten,"
        "dense:10, or a .json file. Images are flattened before a network that begins with dense",
    )
    network.add_argument("--loss", help="default: softmax_cross_entropy for classes, mean_squared_error for numbers")
    network.add_argument("--metrics", type=_names, help="separated by commas; default: accuracy for classes")
    network.add_argument(
        "--optimizer", default="adam", help="sgd, adam, adamw, rmsprop or adagrad (default: %(default)s)"
    )
    network.add_argument("--learning-rate", type=_within("[0, inf)"), metavar="RATE", help="default: the optimizer's")
    network.add_argument("--epochs", type=_within("[1, inf)", int), default=10, help="default: %(default)s")
    network.add_argument("--batch-size", type=_within("[1, inf)", int), default=32, help="default: %(default)s")
    micro = "compute each batch in micro-batches of at most this many rows, which need less memory"
    network.add_argument("--micro-batch-size", type=_within("[1, inf)", int), metavar="ROWS", help=micro)
    network.add_argument(
        "--scale", type=_number, metavar="FACTOR", help="multiply values by this (default: bytes by 1/255)"
    )
    network.add_argument("--seed", type=_within("[0, inf)", int), default=0, help="default: %(default)s")
    network.add_argument(
        "--validation", metavar="DATA", help="validation data; default: the test part of DATA, if it has one"
    )
    network.add_argument(
        "--validation-split", type=_within("[0, 1)"), default=0.0, metavar="SHARE", help="share of DATA to hold out"
    )
    network.add_argument(
        "--distributed", action="store_true", help="train by the processes of mpiexec -n 4 python -m xpnet train ..."
    )
    files = train.add_argument_group("files")
    files.add_argument("--out", type=_writable, required=True, metavar="FILE", help="the model file to write")
    files.add_argument("--checkpoint", type=_writable, metavar="FILE", help="write a checkpoint after each epoch")
    files.add_argument("--resume", action="store_true", help="continue from --checkpoint if the file exists")
    files.add_argument("--history", type=_writable, metavar="FILE", help="write the history as JSON")
    _backend(train)


def _data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", metavar="DATA", help=data.FORMS)
    group = command.add_argument_group("reading data")
    group.add_argument("--data-dir", metavar="DIR", help="a folder with the files of a named data set")
    group.add_argument("--color", action="store_true", help="keep the colors of images")
    group.add_argument(
        "--background", type=_within("[0, 255]", int), metavar="GRAY", help="0 to 255, behind transparent pixels"
    )
    group.add_argument(
        "--label-column", metavar="COLUMN", help="name or position of the targets' column (default: the first)"
    )
    group.add_argument(
        "--index-column", metavar="COLUMN", help="name or position of a column of row numbers to leave out"
    )
    group.add_argument(
        "--header", action=argparse.BooleanOptionalAction, help="whether the first row names the columns"
    )
    group.add_argument("--delimiter", metavar="CHARACTER", help="the character between cells")
    group.add_argument("--numbers", action="store_true", help="the targets are numbers to predict, not classes")


def _backend(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("computing")
    group.add_argument("--backend", help="numpy, cupy, torch, jax or auto (default: $XPNET_BACKEND, or numpy)")
    group.add_argument("--device", help="the library's name for a device, such as cuda:1")
    group.add_argument("--dtype", choices=["float32", "float64"], help="default: float32")
    group.add_argument("--threads", type=_within("[1, inf)", int), help="number of threads (only numpy)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _number(text: str) -> float:
    """A number or a fraction, such as 1/255."""
    try:
        return float(Fraction(text))
    except (ValueError, ArithmeticError) as error:
        raise argparse.ArgumentTypeError(f"expected a number such as 0.5 or 1/255. Received: {text!r}") from error


def _within(interval: str, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """Return a function that reads a number in an interval such as "[0, 1)"."""

    def read(text: str) -> float:
        try:
            value = kind(text)
            number("value", value, interval)
        except (ValueError, OverflowError) as error:
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {what} in {interval}. Received: {text!r:.100}") from error
        return value

    return read


def _table(text: str) -> Path:
    """The path of a file for predictions, whose ending is its format."""
    if Path(text).suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .csv or .json. Received: {text!r}")
    return _writable(text)


def _writable(text: str) -> Path:
    """The path of a file that can be written; checked before a command computes anything."""
    path = Path(text)
    try:
        if path.exists():
            path.open("ab").close()
        with tempfile.TemporaryFile(dir=path.resolve().parent):  # the complete file is written beside the old one
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"the file and its folder must be writable. Choose another path. Received: {error}"
        ) from error
    return path
