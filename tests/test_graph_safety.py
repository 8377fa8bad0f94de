"""Three lints that check, without a GPU, whether every training step obeys the rules of a CUDA graph.

A captured step must not read a value on the host, branch on a value, make a shape from a value, or assign to elements.
`jax.jit` refuses all of this while it traces. array-api-strict, with a guard, refuses to return a value to the host and to create
an array on another device. PyTorch's device "meta" has no values, and its arrays cannot be combined with those of other devices.
The lints check every layer, loss, optimizer and metric, and some deliberate mistakes.
"""

import dataclasses
import importlib
import inspect
import pkgutil

import array_api_strict
import numpy as np
import pytest

import xpnet.layers
from tests.conftest import make, no_sync, only_on
from tests.test_activations import ACTIVATIONS
from xpnet import SGD, Adam, Model, inputs, losses, metrics
from xpnet.backend import namespace
from xpnet.layers import BatchNormalization, GroupNormalization, LayerNormalization, RMSNormalization
from xpnet.layers.activations import ReLU, Softplus, Tanh
from xpnet.layers.attention import MultiHeadAttention, TransformerBlock
from xpnet.layers.augmentation import RandomCrop, RandomFlip, RandomRotation, RandomTranslation
from xpnet.layers.base import Container, Layer, Wrapper
from xpnet.layers.composition import Add, Concatenate, Parallel, Residual, TimeDistributed
from xpnet.layers.convolution import Conv1D, Conv2D, Conv2DTranspose
from xpnet.layers.dense import Dense
from xpnet.layers.dropout import Dropout, DropoutBase
from xpnet.layers.embedding import Embedding, PositionEmbedding
from xpnet.layers.frozen import Frozen
from xpnet.layers.noise import GaussianNoise, SpatialDropout1D, SpatialDropout2D
from xpnet.layers.observed import Observed
from xpnet.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    MaxPooling1D,
    MaxPooling2D,
)
from xpnet.layers.recurrent import GRU, LSTM, Bidirectional, Recurrent, SimpleRNN
from xpnet.layers.reshaping import ChannelsLast, Flatten, Identity, Permute, Rescaling, Reshape
from xpnet.layers.resizing import UpSampling2D, ZeroPadding2D
from xpnet.layers.sequential import Sequential
from xpnet.losses import PerPosition, softmax_cross_entropy
from xpnet.metrics.classification import BinaryAccuracy, LabelMetric
from xpnet.metrics.regression import Regression
from xpnet.optimizers import Adagrad, AdamW, Optimizer, RMSprop
from xpnet.random import step_keys
from xpnet.tree import leaves, map_leaves

pytestmark = pytest.mark.slow

ROW, SEQUENCE, IMAGE = (6,), (5, 4), (6, 6, 2)  # one sample
STEPS, BATCH = 4, 3

NETWORKS = {  # name: shape of a sample, layers; the output is a row of 3
    "dense": (ROW, [Dense(8), ReLU(), Dense(5), Tanh(), Dense(3)]),
    "activations": (ROW, [Dense(4), *ACTIVATIONS, Dense(3)]),
    "dropout": (ROW, [Dropout(0.5), Dense(8), Dropout(0.25), GaussianNoise(0.1), Dense(3)]),
    "reshaping": (ROW, [Rescaling(0.5, 0.1), Identity(), Reshape((2, 3)), Permute((2, 1)), Flatten(), Dense(3)]),
    "frozen normalization": (ROW, [Frozen(Dense(4)), Dense(4), BatchNormalization(),
                                   Frozen(Sequential([Dense(4), BatchNormalization()])), Dense(3)]),
    "shared normalization": (ROW, [DENSE := Dense(6), ReLU(), NORM := BatchNormalization(),
                                   Residual(Sequential([DENSE, NORM])), Dense(3)]),
    "normalization": (ROW, [BatchNormalization(), Dense(8), LayerNormalization(), GroupNormalization(2), RMSNormalization(),
                            Dense(3)]),
    "nested": (ROW, [Sequential([Dense(6), ReLU()]), Residual(Dense(6)), Add((Dense(4), Dense(4))), Dense(3)]),
    "concatenate": (ROW, [Concatenate(tuple(Dense(2) for _ in range(10))), Dense(3)]),
    "image": (IMAGE, [RandomTranslation(1, 1), RandomFlip(), RandomRotation(20.0), RandomCrop(5, 5), ZeroPadding2D(1),
                      Conv2D(4, 3, padding="same"), BatchNormalization(), SpatialDropout2D(0.2), MaxPooling2D(),
                      Conv2DTranspose(3, 2, strides=2), UpSampling2D(), Conv2D(4, 3, groups=1, use_bias=False),
                      AveragePooling2D(), GroupNormalization(2), Flatten(), Dense(3)]),
    "groups": (IMAGE, [Conv2D(4, 3, groups=2), GlobalMaxPooling2D(), Dense(3)]),
    "channels first": ((2, 6, 6), [ChannelsLast(), Conv2D(3, 2, strides=2, dilation_rate=2), GlobalAveragePooling2D()]),
    "one channel": ((6, 6, 1), [Conv2D(2, 3), MaxPooling2D(3, strides=1, padding="same"), Flatten(), Dense(3)]),
    "sequence": (SEQUENCE, [Conv1D(4, 2), SpatialDropout1D(0.2), SimpleRNN(4, return_sequences=True),
                            GRU(4, return_sequences=True, truncate=2), LSTM(3, mask_value=0.0)]),
    "long sequence": ((11, 2), [LSTM(3)]),
    "maxima of a sequence": ((11, 2), [Conv1D(4, 2), MaxPooling1D(), GlobalMaxPooling1D(), Dense(3)]),
    "means of a sequence": ((11, 2), [Conv1D(4, 2), AveragePooling1D(3, 2, "same"), GlobalAveragePooling1D(), Dense(3)]),
    "bidirectional": (SEQUENCE, [Bidirectional(LSTM(2, return_sequences=True)), TimeDistributed(Dense(3)),
                                 Bidirectional(GRU(3), "sum")]),
    "tokens": ((5,), [Embedding(7, 4), PositionEmbedding(5), MultiHeadAttention(2, use_causal_mask=True), Flatten(), Dense(3)]),
    "many tokens": ((5,), [Embedding(300, 2, padding_idx=0), Flatten(), Dense(3)]),  # above 256: sorted, not one-hot
    "transformer": (SEQUENCE, [PositionEmbedding(8), TransformerBlock(4, 2, 8, dropout=0.1), LayerNormalization(), Flatten(),
                               Dense(3)]),
}  # fmt: skip
WITHOUT_A_LOSS = {Parallel}  # has several outputs, so it is traced separately below

OPTIMIZERS = [
    SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9, nesterov=True), SGD(0.1, momentum=0.9, moving_average=True),
    Adam(0.01), AdamW(0.01), RMSprop(0.01), RMSprop(0.01, momentum=0.9), Adagrad(0.1),
    SGD(0.1, l1=0.1, l2=0.1), SGD(0.1, weight_decay=0.1), Adam(0.01, clipvalue=0.5), SGD(0.1, clipnorm=0.5),
    SGD(0.1, momentum=0.5, global_clipnorm=0.5),
]  # fmt: skip
LOSSES = list(xpnet.losses._BY_NAME)
BY_LOSS = {loss: {name: metrics.get(name, losses.get(loss)) for name in metrics.BY_NAME} for loss in LOSSES}
METRICS = {  # the metrics tested with a loss: all that have a name; those of classes also with several labels
    "softmax_cross_entropy": [
        name for name, metric in BY_LOSS["softmax_cross_entropy"].items() if not isinstance(metric, (Regression, BinaryAccuracy))
    ],
    "binary_cross_entropy": [
        name for name, metric in BY_LOSS["binary_cross_entropy"].items()
        if isinstance(metric, (LabelMetric, BinaryAccuracy)) and name not in ("balanced_accuracy", "confusion_matrix")
    ],
    "mean_squared_error": [name for name, metric in BY_LOSS["mean_squared_error"].items() if isinstance(metric, Regression)],
}  # fmt: skip


class Case:
    """The arguments of `Backend.scan` for a model on a small data set: `step`, `state`, `batches`, `data`."""

    def __init__(self, backend, layers, shape, loss="mean_squared_error", optimizer="sgd", metrics=(), weight=False):
        rng = np.random.default_rng(0)
        tokens = isinstance(layers[0], Embedding)
        x = rng.integers(0, 7, (12, *shape)) if tokens else rng.normal(size=(12, *shape))
        model = Model(layers, loss, optimizer, metrics, backend=backend).build(shape)
        output_shape = model.measured[model.input_shape].output_shape
        units = output_shape[0]
        if isinstance(loss, PerPosition):
            y = rng.integers(0, output_shape[-1], (12, units))
        elif loss.startswith(("softmax", "categorical")):
            y = rng.integers(0, units, 12)
        else:
            y = rng.random((12, units // model.loss.outputs_per_target))
        sample_weight = rng.random(12) if weight else None
        x = inputs.prepare_x(backend, x)
        self.data = inputs.prepare_targets(backend, model.loss, output_shape, x, y, sample_weight)
        self.step, self.state, self.backend = model.training_step, model.state, backend
        self.batches = {
            "index": rng.integers(0, 12, (STEPS, BATCH)),
            "learning_rate": np.linspace(0.1, 0.02, STEPS),
            "key": step_keys(0, np.arange(STEPS)),
        }

    def scan(self):
        return self.backend.scan(self.step, self.state, self.batches, self.data)


def jax_lint(make_case):
    """Trace one step, as `jax.jit` does before it compiles."""
    jax = pytest.importorskip("jax")
    case = make_case(make("jax"))
    batch = {name: values[:BATCH, ...] for name, values in case.data.items()}
    batch |= {name: case.backend.asarray(values[0]) for name, values in case.batches.items() if name != "index"}
    jax.eval_shape(case.step, case.state, batch)


def strict_lint(make_case):
    """Run a chunk of steps in which no value may be read, and no array may be created outside the backend's device."""
    case = make_case(make("strict"))
    flags = array_api_strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False)
    with only_on(case.backend.device), no_sync(), flags:
        case.scan()


def torch_lint(make_case):
    """Run a chunk of steps on PyTorch's device for shapes without values. All arrays must stay on this device."""
    torch = pytest.importorskip("torch")
    case = make_case(make("torch"))
    case.state, case.data = map_leaves(lambda x: x.to("meta"), (case.state, case.data))
    case.backend = dataclasses.replace(case.backend, device=torch.device("meta"))

    assert {x.device.type for x in leaves(case.scan())} == {"meta"}


LINTS = pytest.mark.parametrize("lint", [jax_lint, strict_lint, torch_lint])


@LINTS
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer(name, lint):
    shape, layers = NETWORKS[name]

    lint(lambda backend: Case(backend, layers, shape))


@LINTS
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_every_optimizer(optimizer, lint):
    lint(lambda backend: Case(backend, [Dense(4), ReLU(), Dense(3)], ROW, optimizer=optimizer))


@LINTS
@pytest.mark.parametrize("weight", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_metric(loss, weight, lint):
    layers = [Dense(6), Softplus()]

    lint(lambda backend: Case(backend, layers, ROW, loss, metrics=METRICS.get(loss, ()), weight=weight))


@LINTS
def test_a_loss_at_every_position(lint):
    layers = [Embedding(7, 4), TimeDistributed(Dense(5))]

    lint(lambda backend: Case(backend, layers, (3,), PerPosition(softmax_cross_entropy), metrics=["accuracy"]))


@LINTS
def test_several_outputs(lint):
    """No loss fits `Parallel`, so its forward and backward are traced as a step."""
    branches = Parallel((Dense(2), Sequential([Dense(3), Tanh()])))

    class Join(Layer):
        def init(self, rng, input_shape):
            return branches.init(rng, input_shape)[0], (5,)

        def forward(self, params, x):
            ys, backward, _ = branches.forward(params, x)
            return namespace(x).concat(ys, axis=-1), lambda dy, need_dx=True: backward((dy[:, :2], dy[:, 2:]), need_dx)

    lint(lambda backend: Case(backend, [Join()], ROW))


def defined_in(package, base):
    """Return the public subclasses of `base` in all modules of a package."""
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        for name, member in vars(importlib.import_module(module.name)).items():
            is_ours = inspect.isclass(member) and member.__module__ == module.name
            if is_ours and issubclass(member, base) and not name.startswith("_") and not inspect.isabstract(member):
                yield member


def kinds_within(value):
    """Return the types of a layer and of all layers in its settings."""
    if isinstance(value, (tuple, list)):
        return {kind for item in value for kind in kinds_within(item)}
    if not isinstance(value, Layer):
        return set()
    return {type(value)} | kinds_within(list(vars(value).values()))


def test_no_layer_or_optimizer_is_missing_here():
    """Add a new layer to NETWORKS above. Host-side, so no backend."""
    tried = kinds_within([layers for _, layers in NETWORKS.values()]) | WITHOUT_A_LOSS
    missing = (
        set(defined_in(xpnet.layers, Layer)) - tried - {Layer, Container, Wrapper, Observed, DropoutBase, Recurrent}
    )
    optimizers = {member for member in vars(xpnet.optimizers).values() if inspect.isclass(member)}

    assert not missing
    assert {o for o in optimizers if issubclass(o, Optimizer)} - {Optimizer} == {type(o) for o in OPTIMIZERS}
    assert {name for names in METRICS.values() for name in names} >= set(metrics.BY_NAME)


# ---------------------------------------------------------------------- deliberate mistakes


class Mistake(Layer):
    """Uses a function of (xp, x) as its forward."""

    def __init__(self, function):
        self.function = function

    def forward(self, params, x):
        return self.function(namespace(x), x), lambda dy, need_dx=True: (dy, {})


def assigns(xp, x):
    y = x + 0.0
    y[0, ...] = x[1, ...]
    return y


def counts(xp, x):
    return x * (1.0 + xp.nonzero(x > 0)[0].shape[0])


MISTAKES = {  # a layer, and whether (jax, strict, torch) must find its mistake
    "reads a number": (lambda xp, x: x / float(xp.max(x)), (True, True, True)),
    "reads an integer": (lambda xp, x: x * int(xp.argmax(x)), (True, True, True)),
    "branches on a value": (lambda xp, x: -x if xp.any(x > 0) else x, (True, True, True)),
    "takes by a mask": (lambda xp, x: x * xp.sum(x[x > 0]), (True, True, True)),
    "makes a shape from values": (counts, (True, True, True)),
    "calls NumPy": (lambda xp, x: xp.asarray(np.maximum(np.asarray(x), 0)), (True, True, True)),
    "assigns elements": (assigns, (True, False, False)),  # allowed in the standard
    "forgets the device": (
        lambda xp, x: x + xp.zeros(x.shape[-1:], dtype=x.dtype),
        (False, True, True),
    ),  # JAX corrects it
    "none": (lambda xp, x: x + xp.zeros_like(x), (False, False, False)),
}


@pytest.mark.parametrize("position", range(3), ids=["jax", "strict", "torch"])
@pytest.mark.parametrize("name", MISTAKES)
def test_the_lints_see_mistakes(name, position):
    lint = (jax_lint, strict_lint, torch_lint)[position]
    function, seen = MISTAKES[name]

    def case(backend):
        return Case(backend, [Dense(3), Mistake(function)], ROW)

    if seen[position]:
        with pytest.raises(
            Exception, match=r"(?i)concret|trac|host|boolean|data.dependent|device|immutable|assign|meta"
        ):
            lint(case)
    else:
        lint(case)


class ReadsTheRate(SGD):
    def update(self, params, grads, state, learning_rate):
        return super().update(params, grads, state, float(learning_rate))


def test_a_learning_rate_made_a_constant_is_seen():
    """A graph would contain a Python number as a constant. In JAX, as in a graph, the learning rate is an array."""
    with pytest.raises(Exception, match=r"(?i)concret|trac"):
        jax_lint(lambda backend: Case(backend, [Dense(3)], ROW, optimizer=ReadsTheRate(0.1)))
