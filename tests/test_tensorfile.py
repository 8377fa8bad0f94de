"""Files of arrays, and files that only look like them. They hold host arrays, so no `xp` fixture."""

import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from tests.model_files import campaign, described, file_of, header_of
from xpnet import Adam, CheckpointError, Model, load_model, tensorfile
from xpnet.layers import LSTM, BatchNormalization, Dense, Embedding
from xpnet.tensorfile import MAX_ENTRIES, MAX_HEADER, Entry


@pytest.fixture
def valid(tmp_path):
    """Return the content of a model file."""
    Model([Dense(3), BatchNormalization()], "mse", Adam()).build((2,)).save(tmp_path / "valid")
    return (tmp_path / "valid").read_bytes()


def refused(path, content, match):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_arrays_and_description_come_back(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "µ": np.float64(2.5).reshape(()),
        "none": np.zeros((0, 4), np.int64),
    }

    tensorfile.write(tmp_path / "file", arrays, {"kind": "test", "text": "µ\0"})
    file = tensorfile.read(tmp_path / "file")

    assert file.description["kind"] == "test"
    assert file.description["text"] == "µ\0"
    assert file.table == {name: Entry(array.dtype.name, array.shape) for name, array in arrays.items()}
    for array, read in zip(arrays.values(), tensorfile.arrays(file, arrays), strict=True):
        assert np.array_equal(array, read)


def test_safetensors_reads_the_file(tmp_path, valid):
    read = safetensors.numpy.load(valid)

    assert {"0.weight", "1.mean", "optimizer.m.0.weight", "optimizer.t"} <= read.keys()


def test_the_same_model_gives_the_same_file(tmp_path, valid):
    load_model(tmp_path / "valid").save(tmp_path / "again")

    assert (tmp_path / "again").read_bytes() == valid


def test_other_types_are_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="Received: a of type complex64"):
        tensorfile.write(tmp_path / "file", {"a": np.zeros(2, np.complex64)}, {})
    assert not os.listdir(tmp_path)


def test_a_description_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="header of at most"):
        tensorfile.write(tmp_path / "file", {}, {"text": "x" * MAX_HEADER})
    assert not os.listdir(tmp_path)


def table(*offsets, dtype="F32", shape=(1,)):
    return {
        str(i): {"dtype": dtype, "shape": list(shape), "data_offsets": list(pair)} for i, pair in enumerate(offsets)
    }


HEADERS = {
    "nothing": (b"", "first 8 bytes"),
    "short": (b"\1\0", "first 8 bytes"),
    "longer than the file": ((2**63).to_bytes(8, "little") + b"{}", "a length of 9,223,372,036,854,775,808 in a file of 10"),
    "huge header": (file_of(b" " * (MAX_HEADER + 1)), "header of at most"),
    "many entries": (file_of(b"[" + b"0," * MAX_ENTRIES), "at most 200,000 entries"),
    "deep": (file_of(b"[" * 100_000), "a header of JSON"),
    "not text": (file_of(b"\xff\xfe{}"), "a header of JSON"),
    "not JSON": (file_of(b"{'a': 1}"), "a header of JSON"),
    "a long number": (file_of(b'{"a": ' + b"9" * 100_000 + b"}"), "a header of JSON"),
    "a list": (file_of([]), "names to arrays"),
    "pickle": (b"\x80\x04\x95" + bytes(100), "first 8 bytes"),
    "another library's": (safetensors.numpy.save({"a": np.zeros(2)}), "a file that xpnet wrote"),
    "a name twice": (file_of(b'{"a": {}, "a": {}}'), "each name once"),
    "no description": (file_of({"__metadata__": {"xpnet": "[]"}}), "its format's version"),
    "format of no number": (file_of({"__metadata__": {"xpnet": '{"format": "1"}'}}), "its format's version"),
    "too new": (
        file_of({"__metadata__": {"xpnet": '{"format": 2, "xpnet": "9.1"}'}}),
        "format 1 or older. Upgrade xpnet.*format 2, which xpnet '9.1' wrote",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_what_is_not_a_header_is_refused(tmp_path, case):
    refused(tmp_path / "file", *HEADERS[case])


TABLES = {
    "type": (table((0, 4), dtype="F16"), 4, "arrays of types"),
    "no text as type": (table((0, 4), dtype=["F32"]), 4, "arrays of types"),
    "negative shape": (table((0, 4), shape=(-1, -1)), 4, "non-negative integers"),
    "shape of floats": (table((0, 4), shape=(1.0,)), 4, "non-negative integers"),
    "huge shape": (table((0, 4), shape=(2**63,)), 4, "non-negative integers"),
    "many axes": (table((0, 4), shape=(1,) * 65), 4, "non-negative integers"),
    "three offsets": (table((0, 4, 8)), 4, "non-negative integers"),
    "too few bytes": (table((0, 3)), 3, "as many bytes"),
    "backwards": (table((4, 0)), 4, "as many bytes"),
    "beyond the end": (table((0, 4)), 3, "4 bytes of arrays"),
    "bytes left over": (table((0, 4)), 5, "4 bytes of arrays"),
    "overlap": (table((0, 4), (0, 4)), 4, "without gap or overlap"),
    "gap": (table((0, 4), (5, 9)), 9, "without gap or overlap"),
    "no dict": ({"a": 1}, 0, "dtype, shape and data_offsets"),
    "more keys": ({"a": table((0, 4))["0"] | {"path": "/etc"}}, 4, "dtype, shape and data_offsets"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_do_not_fit_the_file_are_refused(tmp_path, valid, case):
    entries, size, match = TABLES[case]
    header = {"__metadata__": header_of(valid)[0]["__metadata__"], **entries}

    refused(tmp_path / "file", file_of(header, bytes(size)), match)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 100, -1])
def test_truncated_files_are_refused(tmp_path, valid, cut):
    refused(tmp_path / "file", valid[:cut], "Expected")


def test_a_name_with_a_path_is_not_followed(tmp_path, valid):
    header, data = header_of(valid)
    header["../../0.weight"] = header.pop("0.weight")

    refused(tmp_path / "inside", file_of(header, data), r"the arrays of this network, '0.weight': Entry.*no such array")
    assert sorted(os.listdir(tmp_path)) == ["inside", "valid"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_and_a_folder_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    for name in ("pipe", "folder", "missing", "zero\0byte"):
        with pytest.raises(CheckpointError, match="Expected"):
            load_model(tmp_path / name)


@pytest.mark.parametrize(
    ("layer", "units"),
    [("Dense", "units"), ("LSTM", "units"), ("BatchNormalization", None), ("Embedding", "input_dim")],
)
def test_a_network_larger_than_its_file_takes_no_memory(tmp_path, layer, units):
    network, shape = {
        "Dense": ([Dense(2)], (2,)),
        "LSTM": ([LSTM(2)], (3, 2)),
        "BatchNormalization": ([BatchNormalization()], (2,)),
        "Embedding": ([Embedding(3, 2)], (2,)),
    }[layer]
    Model(network, "mse").build(shape).save(tmp_path / "valid")

    def enlarge(description):
        if units:
            description["layers"][0]["settings"][units] = 10**12
        else:
            description["input_shape"] = [10**12]

    content = described((tmp_path / "valid").read_bytes(), enlarge)
    tracemalloc.start()
    refused(tmp_path / "file", content, "A parameter may have .* values")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2**22


@pytest.mark.parametrize("case", ["units", "dtype", "missing array", "NaN", "garbage"])
def test_refusing_takes_less_than_twice_the_file(tmp_path, case):
    """Refuse a file of 16 MB. For smaller files, the header may take as much memory as for this one."""
    Model([Dense(1000), Dense(1)], "mse", Adam()).build((1300,)).save(tmp_path / "valid")
    content = (tmp_path / "valid").read_bytes()
    header, data = header_of(content)
    if case == "units":
        content = described(content, lambda description: description["layers"][0]["settings"].update(units=1001))
    elif case == "dtype":
        content = described(content, lambda description: description.update(dtype="float64"))
    elif case == "missing array":
        header["other"] = header.pop("optimizer.t")
        content = file_of(header, data)
    elif case == "NaN":
        content = content[:-4] + np.float32(np.nan).tobytes()
    else:
        content = file_of(b"[" + b"[],[1]," * 500_000, data)
    size = len(content)
    (tmp_path / "file").write_bytes(content)
    del content, data
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size > 15e6
    assert peak < 2 * size


def test_mutated_files_are_models_or_refused(tmp_path):
    """Tries 2,000 mutations; `python -m tests.model_files 200000` tries 200,000."""
    models, _ = campaign(tmp_path, 2000)

    assert 20 < models < 1000
