"""The command line. Commands that compute run on every backend; the parsers of networks and data are host-side."""

import argparse
import gzip
import json
import os
import re
import struct

import numpy as np
import pytest

import xpnet
from tests.scripts import ROOT, run
from xpnet import layers
from xpnet.cli import data, main
from xpnet.cli.main import parser
from xpnet.cli.network import NAMES, parse, prepared
from xpnet.layers import LSTM, Bidirectional, Concatenate, Conv2D, Dense, Dropout, Flatten, MaxPooling2D, ReLU, Residual
from xpnet.layers import Sequential as Seq


@pytest.fixture
def command(xp, capsys):
    """Run a command on the backend. Return its output to stdout and to stderr."""
    name = {"strict": "array_api_strict"}.get(xp.name, xp.name)
    computing = ["--backend", name, *(["--device", "device1"] if name == "array_api_strict" else [])]

    def run_command(name, *arguments, status=0):
        given = [*map(str, arguments), *(computing if name in ("train", "evaluate", "predict") else [])]
        assert main([name, *given]) == status
        return capsys.readouterr()

    return run_command


@pytest.fixture
def blobs(tmp_path, rng):
    """Return a CSV file with three named classes that are far apart."""
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 2)) + 5 * np.eye(3)[y][:, :2]
    rows = ["kind,a,b", *(f"{['red', 'green', 'blue'][label]},{p[0]},{p[1]}" for label, p in zip(y, x, strict=True))]
    path = tmp_path / "blobs.csv"
    path.write_text("\n".join(rows))
    (tmp_path / "values.csv").write_text("\n".join(f"{a},{b}" for a, b in x))
    return path


def train(command, path, *more, network="dense:8,tanh,dense:3"):
    out = path.parent / "model.safetensors"
    return out, command("train", path, "--network", network, "--out", out, "--learning-rate", 0.05, *more)


def test_train_evaluate_predict_and_info(command, blobs):
    model, printed = train(command, blobs, "--epochs", 20, "--history", blobs.parent / "history.json")
    assert "60 samples of shape (2,)" in printed.out
    assert "Saved" in printed.out
    assert len(json.loads((blobs.parent / "history.json").read_text())["loss"]) == 20

    values = json.loads(command("evaluate", model, blobs, "--json").out)
    assert values["accuracy"] > 0.9

    rows = command("predict", model, blobs.parent / "values.csv").out.splitlines()
    assert rows[0] == "sample,class,p(blue),p(green),p(red)"
    assert len(rows) == 61
    assert rows[1].split(",")[1] == "red"

    out = blobs.parent / "answers.JSON"
    command("predict", model, blobs.parent / "values.csv", "--out", out)
    answers = json.loads(out.read_text())
    assert [answer["class"] for answer in answers[:3]] == ["red", "green", "blue"]
    assert sum(answers[0][f"p({name})"] for name in ("red", "green", "blue")) == pytest.approx(1, abs=1e-5)

    about = command("info", model).out
    assert "classes: blue, green, red" in about
    assert "20 epochs, 40 steps" in about


def test_the_result_is_that_of_the_library(command, xp, blobs):
    if xp.parts(0, 0) > 1:
        pytest.skip("the command does not know the backend of the tests that divides every batch")
    model, _ = train(command, blobs, "--epochs", 3, "--seed", 4)
    table = xpnet.datasets.label_first_csv(blobs, dtype="float32")
    ours = xpnet.Model(
        [Dense(8), layers.Tanh(), Dense(3)], "softmax_cross_entropy", xpnet.Adam(0.05), seed=4, backend=xp
    )
    ours.fit(table.x, table.y, epochs=3, verbose=0)

    for name, values in xpnet.load_model(model, xp).state_dict().items():
        np.testing.assert_array_equal(values, ours.state_dict()[name])


def test_numbers(command, tmp_path):
    x = np.linspace(0, 1, 40)
    path = tmp_path / "line.csv"
    path.write_text("x,target\n" + "\n".join(f"{a},{2 * a}" for a in x))
    model, _ = train(
        command, path, "--numbers", "--label-column", "target", "--epochs", 40, "--optimizer", "sgd", network="dense:1"
    )
    (tmp_path / "x.csv").write_text("0.5\n0.25")

    rows = command("predict", model, tmp_path / "x.csv").out.splitlines()
    assert rows[0] == "sample,prediction"
    assert [float(row.split(",")[1]) for row in rows[1:]] == pytest.approx([1.0, 0.5], abs=0.3)


def test_a_run_continues_from_its_checkpoint(command, blobs):
    checkpoint = blobs.parent / "checkpoint.safetensors"
    whole, _ = train(command, blobs, "--epochs", 6)
    expected = xpnet.load_model(whole, "numpy").state_dict()
    train(command, blobs, "--epochs", 4, "--checkpoint", checkpoint)
    continued, printed = train(command, blobs, "--epochs", 6, "--checkpoint", checkpoint, "--resume")

    assert "Continuing from" in printed.out
    for name, values in xpnet.load_model(continued, "numpy").state_dict().items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_checkpoint_with_braces_in_its_name_is_one_file(command, blobs):
    checkpoint = blobs.parent / "run {epoch}.safetensors"
    for epochs in (1, 2):
        _, printed = train(command, blobs, "--epochs", epochs, "--checkpoint", checkpoint, "--resume")

    assert checkpoint.exists()
    assert "Continuing from" in printed.out


def test_a_scale_of_0_is_used(command, blobs):
    out, _ = train(command, blobs, "--epochs", 1, "--scale", 0)
    assert xpnet.load_model(out, "numpy").network.layers[0] == layers.Rescaling(0.0)


def test_output_through_a_link_to_a_new_file(tmp_path):
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "new.csv")
    parser().parse_args(["export", "model.safetensors", str(link)])
    assert link.is_symlink()
    assert os.listdir(tmp_path) == ["link.csv"]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, capsys):
    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    path = tmp_path / "old.safetensors"
    path.touch()
    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # a user with all rights may write to any folder
    with pytest.raises(SystemExit):
        parser().parse_args(["export", "model.safetensors", str(path)])
    assert "its folder must be writable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "missing.csv", "--network", "dense:1"], "missing.csv: expected a data set"),
        (["train", "missing.csv", "--network", "dens:1"], 'Did you mean "Dense"'),
        (["train", "blobs.csv", "--network", "dens:1"], 'Did you mean "Dense"'),
        (["train", "blobs.csv", "--network", "dense:1"], "at least two"),
        (["train", "blobs.csv", "--network", "dense:3", "--optimizer", "adm"], "adam"),
        (["train", "blobs.csv", "--network", "dense:3", "--loss", "cross"], "A loss must be"),
        (["train", "blobs.csv", "--network", "missing.json"], "missing.json must be a file"),
        (["train", "blobs.csv", "--network", "dense:3", "--checkpoint", "model.safetensors"], "must be different files"),
        (["evaluate", "blobs.csv", "mnist"], "blobs.csv: Expected a complete model file"),
        (["predict", "missing.safetensors", "blobs.csv"], "missing.safetensors"),
        (["info", "blobs.csv"], "Expected a complete model file"),
        (["train", "blobs.csv", "--network", "dense:3", "--resume"], "--checkpoint FILE"),
        (["export", "blobs.csv", "new.onnx"], "Expected a complete model file"),
        (["data", "mnits"], 'Did you mean "mnist"'),
    ],
)  # fmt: skip
def test_an_error_is_one_line(blobs, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(blobs.parent)
    more = ["--out", "model.safetensors"] if arguments[0] == "train" else []
    before = sorted(blobs.parent.iterdir())

    assert main([*arguments, *more]) == 1

    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("xpnet: error: ")
    assert expected in error[0]
    assert sorted(blobs.parent.iterdir()) == before
    with pytest.raises((ValueError, OSError)):
        main([*arguments, *more, "--debug"])


def test_a_name_like_that_of_a_layer_gets_one_suggestion_and_another_name_the_list():
    names = rf'"Dense", \.\.\. \({len(NAMES)} names\)'
    with pytest.raises(
        ValueError, match=rf"^A layer must be one of {names}\. Did you mean \"Dense\"\? Received: 'dens'$"
    ):
        parse("dens:1")
    with pytest.raises(ValueError, match=r'A layer must be one of .*"ReLU", .*"Dense"'):
        parse("transmogrifier")


@pytest.mark.parametrize(
    "arguments", [[], ["trian"], ["train"], ["train", "mnist", "--network", "dense:1", "--out", "/no/m"]]
)
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)

    assert error.value.code == 2
    assert "usage: xpnet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--epochs", "0", r"an integer in \[1, inf\)"),
        ("--epochs", "1.5", r"an integer in \[1, inf\)"),
        ("--epochs", "1" + "0" * 400, r"an integer in \[1, inf\)"),
        ("--batch-size", "-1", r"an integer in \[1, inf\)"),
        ("--learning-rate", "nan", r"a number in \[0, inf\)"),
        ("--learning-rate", "fast", r"a number in \[0, inf\)"),
        ("--validation-split", "1", r"a number in \[0, 1\)"),
        ("--seed", "-1", r"an integer in \[0, inf\)"),
        ("--background", "256", r"an integer in \[0, 255\]"),
        ("--threads", "0", r"an integer in \[1, inf\)"),
        ("--scale", "1e400", "a number such as 0.5"),
        ("--scale", "1/0", "a number such as 0.5"),
    ],
)
def test_a_number_that_is_out_of_range_is_a_wrong_argument(option, value, expected, capsys):
    with pytest.raises(SystemExit) as error:
        main(["train", "mnist", "--network", "dense:1", "--out", "model.safetensors", option, value])

    assert error.value.code == 2
    assert re.search(f"argument {option}: expected {expected}.*Received: '{value:.20}", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["answers.txt", "answers", "json"])
def test_predictions_need_a_file_name_whose_ending_is_known(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(["predict", "model.safetensors", "mnist", "--out", name])

    assert error.value.code == 2
    assert f"expected a file name that ends in .csv or .json. Received: '{name}'" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_ctrl_c_exits_with_130(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(xpnet, "available_backends", interrupt)

    assert main(["backends"]) == 130


def test_the_module():
    assert "numpy            usable" in run("-m", "xpnet", "backends").stdout


def test_the_commands_of_the_docs_page_are_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    for line in lines:
        words = line.removeprefix("mpiexec -n 4 ").split()
        if words[0] == "--network":
            parse(words[1])
        else:
            assert words[0] == "xpnet"
            options = parser().parse_args(words[1:])
            if "network" in options:
                parse(options.network)
    (network,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "network.json").write_text(network)
    assert parse("network.json").output_shape((8, 8, 16)) == (10,)


@pytest.mark.slow
def test_the_first_commands_of_the_docs_page_run(real_mnist, tmp_path, monkeypatch, capsys):
    """On MNIST, with one epoch; `photos/` holds images of the test set."""
    pytest.importorskip("onnx")
    image = pytest.importorskip("PIL.Image")
    _, (images, labels) = real_mnist
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        image.fromarray(images[i]).save(tmp_path / "photos" / f"{i:02d}.png")
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for line in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0].splitlines():
        assert main([*line.replace("--epochs 5", "--epochs 1").split()[1:]]) == 0, line

    printed = capsys.readouterr().out
    assert "mnist: 60,000 + 10,000 images of 28x28, verified" in printed
    assert (tmp_path / "mnist.onnx").stat().st_size > 400_000
    answers = [line.split(",")[:2] for line in (tmp_path / "answers.csv").read_text().splitlines()[1:]]
    assert [name for name, _ in answers] == [f"{i:02d}.png" for i in range(20)]
    assert sum(answer == str(label) for (_, answer), label in zip(answers, labels[:20], strict=True)) >= 17


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "info", "export", "backends", "data"])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as error:
        main([name, "--help"])

    assert error.value.code == 0
    assert f"usage: xpnet {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dense:128,relu,dropout:0.2,dense:10", [Dense(128), ReLU(), Dropout(0.2), Dense(10)]),
        ("Conv2D:4:3x5:padding=same, MAX_POOLING_2D:2", [Conv2D(4, (3, 5), padding="same"), MaxPooling2D(2)]),
        ("dense:3:use_bias=false", [Dense(3, use_bias=False)]),
        ("lstm:4:mask_value=-1.5:truncate=none", [LSTM(4, mask_value=-1.5)]),
    ],
)
def test_a_network_as_text(text, expected):
    assert parse(text) == Seq(expected)


def test_a_network_in_a_json_file(tmp_path):
    path = tmp_path / "network.json"
    described = [
        "dense:3",
        {"class": "residual", "branch": ["dense:3", "relu"]},
        {"class": "Concatenate", "branches": ["dense:1", ["dense:2", "relu"]]},
        {"class": "Conv2D", "filters": 2, "kernel_size": [3, 5]},
        {"class": "Bidirectional", "layer": "lstm:3"},
    ]
    path.write_text(json.dumps(described))

    assert parse(str(path)) == Seq([
        Dense(3), Residual(Seq([Dense(3), ReLU()])), Concatenate([Dense(1), Seq([Dense(2), ReLU()])]), Conv2D(2, (3, 5)),
        Bidirectional(LSTM(3)),
    ])  # fmt: skip


@pytest.mark.parametrize("text", ["", "dense:3,", ":3", "dense", "dense:x", "dense:3:lr=1", "container", "add:3"])
def test_an_invalid_network(text):
    with pytest.raises(ValueError, match=r"Received|missing"):
        parse(text)


@pytest.mark.parametrize("text", ["{", "3", "null", '[{"units": 3}]', '{"network": 3}', '["dense:3", 4]'])
def test_an_invalid_json_file(text, tmp_path):
    path = tmp_path / "network.json"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"network\.json"):
        parse(str(path))


def test_every_layer_has_a_name():
    assert {name for name in layers.__all__ if name not in ("Container", "Layer")} == set(NAMES.values())


def test_the_layers_in_front():
    assert prepared(parse("dense:3"), (4,), 1.0) == Seq([Dense(3)])
    assert prepared(parse("dense:3"), (4, 4), 1.0) == Seq([Flatten(), Dense(3)])
    assert prepared(parse("dense:3"), (4, 4), 0.5) == Seq([layers.Rescaling(0.5), Flatten(), Dense(3)])
    assert prepared(parse("conv2d:3:2"), (4, 4), 1.0) == Seq([layers.Reshape((4, 4, 1)), Conv2D(3, 2)])
    assert prepared(parse("conv2d:3:2"), (4, 4, 3), 1.0) == Seq([Conv2D(3, 2)])
    assert prepared(parse("lstm:3"), (4, 4), 1.0) == Seq([LSTM(3)])
    assert prepared(parse("rescaling:0.1,flatten"), (4, 4), 0.5) == parse("rescaling:0.1,flatten")


OPTIONS = argparse.Namespace(
    data_dir=None,
    color=False,
    background=None,
    label_column=None,
    index_column=None,
    header=None,
    delimiter=None,
    numbers=False,
)


def options(**changes):
    return argparse.Namespace(**{**vars(OPTIONS), **changes})


def test_npz(tmp_path, rng):
    x, y = rng.normal(size=(6, 2)), np.arange(6)
    np.savez(tmp_path / "pair.npz", x=x, y=y)
    np.savez(tmp_path / "parts.npz", x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:])
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))

    first, second = data.read(str(tmp_path / "pair.npz"), OPTIONS)
    assert first.x.shape == (6, 2)
    assert second is None
    first, second = data.read(str(tmp_path / "parts.npz"), OPTIONS)
    assert (len(first.x), len(second.y)) == (4, 2)
    assert data.read(str(tmp_path / "x.npz"), OPTIONS, labeled=False)[0].y is None
    for name in ("x.npz", "objects.npz"):
        with pytest.raises(xpnet.DatasetError, match=name):
            data.read(str(tmp_path / name), OPTIONS)
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "pair.npz").read_bytes()[:100])
    with pytest.raises(xpnet.DatasetError, match=r"damaged\.npz: expected a complete"):
        data.read(str(tmp_path / "damaged.npz"), OPTIONS)


def test_idx(tmp_path):
    images, labels = tmp_path / "a-images-idx3-ubyte", tmp_path / "a-labels-idx1-ubyte.gz"
    images.write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 2, 2) + bytes(8))
    with pytest.raises(xpnet.DatasetError, match="a-labels-idx1-ubyte"):
        data.read(str(images), OPTIONS)
    labels.write_bytes(gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([3, 1])))

    samples, _ = data.read(str(images), OPTIONS)
    assert samples.x.shape == (2, 2, 2)
    assert samples.y.tolist() == [3, 1]


def test_tables_of_numbers(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('a\t"b, c"\td\n1\t2.5\t3\n\n4\t5\t6\n')

    samples, _ = data.read(str(path), options(numbers=True, label_column="b, c"))
    assert samples.y.tolist() == [2.5, 5.0]
    assert samples.x.tolist() == [[1, 3], [4, 6]]
    assert data.read(str(path), options(header=True), labeled=False)[0].x.shape == (2, 3)
    for changes in ({}, {"label_column": "z"}, {"label_column": "3", "header": True}):
        with pytest.raises(xpnet.DatasetError, match=r"t\.tsv: expected"):
            data.read(str(path), options(numbers=True, **changes))


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("1,2\n3,4\n", ["--header"], None),
        (",a,label\n0,5,1\n1,6,0\n", [], "--index-column 0"),
        (",a,label\n0,5,1\n1,6,0\n", ["--index-column", "0", "--label-column", "label"], None),
        ("0,1,2\n1,0,3\n", [], "--header if they name the columns, --no-header if"),
        ("1.5,2\n2.5,3\n", [], "--numbers"),
        ("1.5,2\n2.5,3\n", ["--numbers", "--network", "dense:1"], None),
        ("a;b,c\n", [], "--delimiter ';'"),
    ],
)
def test_an_error_of_a_reader_names_the_options(text, arguments, expected, tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text(text)
    command = ["train", str(path), "--network", "dense:5", "--epochs", "1", "--out", str(tmp_path / "m.safetensors")]

    assert main([*command, *arguments]) == (0 if expected is None else 1)
    assert (expected or "") in capsys.readouterr().err


def test_folders_of_images(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    for label in ("cat", "dog"):
        (tmp_path / "animals" / label).mkdir(parents=True)
        image.new("L", (4, 3), 7).save(tmp_path / "animals" / label / "1.png")
    samples, _ = data.read(str(tmp_path / "animals"), OPTIONS)
    assert samples.class_names == ("cat", "dog")

    alone = data.read(str(tmp_path / "animals" / "cat"), OPTIONS, labeled=False)[0]
    assert alone.rows == ["1.png"]
    assert data.read(str(tmp_path / "animals" / "cat" / "1.png"), OPTIONS, labeled=False)[0].x.shape == (1, 3, 4)
