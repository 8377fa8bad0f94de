"""Damaged and hostile ONNX files. ``python -m tests.onnx_files 10000`` loads 10,000 mutations of valid files.

Each must load as a model that predicts what ONNX Runtime computes, or raise ConversionError. Anything else ends the run and
leaves the file.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from xpnet import ConversionError, Model
from xpnet.interchange import load_onnx, save_onnx
from xpnet.layers import (
    GRU,
    LSTM,
    Bidirectional,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    GroupNormalization,
    MaxPooling2D,
    MultiHeadAttention,
    Residual,
    RMSNormalization,
    Sequential,
    TimeDistributed,
)

NETWORKS = [
    ((4,), [Dense(3, "gelu"), Residual(Sequential([Dense(3), RMSNormalization()])), Dense(2, "softmax")]),
    ((6, 6, 2), [Conv2D(4, 3, padding="same", activation="relu"), GroupNormalization(2), MaxPooling2D(), Flatten(), Dense(2)]),
    ((4, 4), [Bidirectional(LSTM(2, True)), GRU(3, True), TimeDistributed(Dense(4)), MultiHeadAttention(2)]),
    ((4,), [Embedding(5, 3, padding_idx=0), LSTM(2, True, mask_value=0.0), GRU(2)]),
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, -(2**63), 2**63 - 1, 2**31, 10**12]

onnxruntime.set_default_logger_severity(4)  # it prints why it refuses a file


def valid_files(folder):
    """Return the contents of a few files with operators of all kinds."""
    contents = []
    for shape, network in NETWORKS:
        save_onnx(Model(network, "mse").build(shape), folder / "valid.onnx")
        contents.append((folder / "valid.onnx").read_bytes())
    return contents


def mutated(content, rng):
    """Return a file that has random bytes, is cut off, or has a valid graph with another number, name or operator somewhere."""
    kind = rng.integers(4)
    if kind == 0:
        return content[: rng.integers(len(content))]
    if kind == 1:
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        return bytes(damaged)
    proto = onnx.ModelProto.FromString(content)
    for _ in range(rng.integers(1, 4)):
        _change(proto, rng)
    return proto.SerializeToString()


def _change(proto, rng):
    graph = proto.graph
    node = graph.node[rng.integers(len(graph.node))]
    other = graph.node[rng.integers(len(graph.node))]
    number = int(rng.choice(np.array(NUMBERS, dtype=object)))
    kind = rng.integers(9)
    if kind == 0:
        node.op_type = str(rng.choice([other.op_type, "Mul", "Concat", "Reshape", "Shape", "Loop", "", "\0"]))
    elif kind == 1 and node.input:
        names = [*other.input, *other.output, graph.input[0].name, "", "nowhere"]
        node.input[rng.integers(len(node.input))] = names[rng.integers(len(names))]
    elif kind == 2 and node.attribute:
        attribute = node.attribute[rng.integers(len(node.attribute))]
        if attribute.ints:
            attribute.ints[rng.integers(len(attribute.ints))] = number
        attribute.i, attribute.f = number, float(rng.choice([0.0, -1.0, np.nan, np.inf]))
    elif kind == 3 and graph.initializer:
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        if tensor.dims:
            tensor.dims[rng.integers(len(tensor.dims))] = number
    elif kind == 4 and graph.initializer:
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        tensor.data_type = int(rng.integers(30))
    elif kind == 5 and graph.initializer:
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        if tensor.data_type == tensor.INT64 and len(tensor.raw_data) >= 8:
            place = 8 * int(rng.integers(len(tensor.raw_data) // 8))
            bits = number.to_bytes(8, "little", signed=True)
            tensor.raw_data = tensor.raw_data[:place] + bits + tensor.raw_data[place + 8 :]
    elif kind == 6:
        dims = graph.input[0].type.tensor_type.shape.dim
        dims[rng.integers(len(dims))].dim_value = number
    elif kind == 7:
        node.input.append(other.output[0]) if rng.random() < 0.5 else node.output.append(other.output[0])
    else:
        graph.node.add().CopyFrom(node)


def load(path):
    """Whether a file loads; if so, its model predicts what ONNX Runtime computes, unless ONNX Runtime refuses the file."""
    try:
        model = load_onnx(path)
    except ConversionError:
        return False
    if np.prod(model.input_shape, dtype=float) > 1e6:
        return True
    rng, shape = np.random.default_rng(0), (3, *model.input_shape)
    tokens = model.network.integer_input
    x = rng.integers(0, 5, shape) if tokens else rng.normal(size=shape).astype("float32")
    answer = model.predict(x)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    except Exception:  # ONNX Runtime has no base class of its errors
        return True
    if np.all(np.abs(expected) < 1e4):  # random weights may be so large that they overflow
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)
    return True


def main(count, seed=0):
    rng, folder, start, loaded = np.random.default_rng(seed), Path(tempfile.mkdtemp()), time.monotonic(), 0
    contents, path = valid_files(folder), folder / "mutated.onnx"
    for i in range(count):
        path.write_bytes(mutated(contents[i % len(contents)], rng))
        try:
            began = time.monotonic()
            loaded += load(path)
            assert time.monotonic() - began < 10, "a file took 10 s"
        except BaseException:
            print(f"file {i} is left at {path}")
            raise
    print(f"{count:,} files, {loaded:,} of them loaded, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
