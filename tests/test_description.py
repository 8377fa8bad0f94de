"""Settings as data. No arrays, so no backend."""

import inspect
import json
import math
from dataclasses import dataclass, is_dataclass
from typing import Any

import pytest

from xpnet import SGD, CheckpointError, Sequential, layers, losses, metrics, optimizers, schedules
from xpnet.description import KINDS, MAX_LAYERS, check_custom, describe, rebuild
from xpnet.layers import Add, Concatenate, Dense, Flatten, Frozen, Residual

SETTINGS = {  # for classes that require settings
    "Dense": (3,), "Conv1D": (2, 3), "Conv2D": (2, (3, 2)), "Conv2DTranspose": (2, 3), "Dropout": (0.5,),
    "Embedding": (5, 2), "PositionEmbedding": (7,), "GaussianNoise": (0.1,), "SpatialDropout1D": (0.1,),
    "SpatialDropout2D": (0.1,), "GroupNormalization": (2,), "LSTM": (3,), "GRU": (3,), "SimpleRNN": (3,),
    "Rescaling": (2.0,), "Reshape": ((2, 3),), "Permute": ((2, 1),), "MultiHeadAttention": (2,), "RandomTranslation": (2, 0.1),
    "RandomCrop": (2, 3), "RandomRotation": (30,), "Parallel": ([Dense(2)],), "Add": ([Dense(2), Dense(2)],),
    "Concatenate": ([Dense(2), Flatten()],), "TimeDistributed": (Dense(2),), "Bidirectional": (layers.LSTM(2),),
    "Frozen": (Dense(2, "relu"),), "Sequential": ([Dense(2, "relu"), Dense(1)],), "PerPosition": (losses.MeanSquaredError(),),
    "schedules.Constant": (0.1,), "Linear": (0.1, 10, 0.0), "PolynomialDecay": (0.1, 10, 0.0, 2.0),
    "ExponentialDecay": (0.1, 10, 0.5), "InverseTimeDecay": (0.1, 10, 0.5), "CosineDecay": (0.1, 10),
    "PiecewiseConstantDecay": ([10, 20], [0.1, 0.01, 0.001]), "CosineDecayRestarts": (0.1, 10),
    "WarmUp": (5, schedules.CosineDecay(0.1, 10)), "OneCycle": (0.1, 10),
}  # fmt: skip


def known_classes():
    for kind, (module, base) in KINDS.items():
        for name in dir(module):
            cls = getattr(module, name)
            fits = inspect.isclass(cls) and issubclass(cls, base) and is_dataclass(cls) and not inspect.isabstract(cls)
            if fits and not name.startswith("_"):
                yield pytest.param(kind, cls, id=f"{kind}.{name}")


def through_json(parts, custom=None):
    described = json.loads(json.dumps(describe(parts), allow_nan=False))
    return rebuild(described, parts, custom or {})


@pytest.mark.parametrize(("kind", "cls"), list(known_classes()))
def test_every_class_comes_back_with_its_settings(kind, cls):
    settings = SETTINGS.get(f"{kind}.{cls.__name__}", SETTINGS.get(cls.__name__, ()))
    one = cls(*settings)

    assert describe({"one": one})["layers" if kind == "layers" else "one"]
    assert repr(through_json({"one": one})["one"]) == repr(one)
    assert through_json({"one": one})["one"] == one


def test_nothing_public_is_left_out():
    for kind, package in (("layers", layers), ("losses", losses), ("metrics", metrics), ("optimizers", optimizers)):
        public = {name for name in package.__all__ if is_dataclass(getattr(package, name)) and name != "Optimizer"}
        public -= {name for name in public if inspect.isabstract(getattr(package, name))}
        public -= {name for name in public if not isinstance(getattr(package, name), type)}
        assert public <= {case.values[1].__name__ for case in known_classes() if case.values[0] == kind}


def test_containers_and_shared_layers_keep_their_form():
    shared = Dense(4, "tanh")
    network = Sequential(
        [
            shared,
            Residual(Sequential([shared, Frozen(Dense(4))])),
            Add([shared, Dense(4, "relu")]),
            Concatenate([shared, shared]),
        ]
    )

    again = through_json({"network": network})["network"]

    assert again == network
    assert again.links == network.links
    assert len(again.links) > 3
    assert len({id(layer) for layer in again.layers}) == len({id(layer) for layer in network.layers})


def test_values_that_json_lacks_come_back():
    @dataclass(frozen=True)
    class Values(layers.Layer):
        value: Any

    for value in (math.inf, -math.inf, (1, (2, None)), [1, (2.5,)], {"a": (1,), "b": [True]}, 10**30, "µ"):
        assert through_json({"one": Values(value)}, {"Values": Values})["one"].value == value
    assert math.isnan(through_json({"one": Values(math.nan)}, {"Values": Values})["one"].value)


@dataclass(frozen=True)
class Scaled(layers.Layer):
    factor: float = 2.0


class Plain(layers.Layer):
    pass


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (SGD(lambda step: 0.1), "part, SGD.learning_rate cannot be saved"),
        (SGD(schedules.WarmUp(3, lambda step: 0.1)), "part, SGD.learning_rate, WarmUp.then cannot be saved"),
        (
            Sequential([Dense(2), Dense(2, weight_initializer=lambda rng, shape: 0)]),
            r"layers\[1\], Dense.weight_initializer",
        ),
        (Sequential([Dense(2), Plain()]), r"part, Sequential.layers\[1\] cannot be saved"),
        (Sequential([Frozen(Plain())]), r"Frozen.layer cannot be saved"),
    ],
)
def test_what_is_not_a_setting_is_refused_with_its_place(part, names):
    with pytest.raises(CheckpointError, match=names) as caught:
        describe({"part": part})
    assert "frozen dataclass and pass it to load_model(custom_objects=...)" in str(caught.value)


def test_custom_classes_are_asked_for_by_name():
    described = describe({"one": Sequential([Scaled(3.0)])})

    with pytest.raises(CheckpointError, match=r"The class of layer 0 is not an xpnet class. Pass .*'Scaled'"):
        rebuild(described, ["one"])
    assert rebuild(described, ["one"], {"Scaled": Scaled})["one"].layers == (Scaled(3.0),)


def test_two_custom_classes_of_one_name_are_refused():
    other = dataclass(frozen=True)(type("Scaled", (layers.Layer,), {}))

    with pytest.raises(CheckpointError, match="two classes have one name"):
        describe({"one": Sequential([Scaled(), other()])})


def test_a_class_that_does_not_accept_its_own_settings_is_refused():
    @dataclass(frozen=True)
    class Doubled(layers.Layer):
        width: Any

        def __post_init__(self):
            object.__setattr__(self, "width", (int(self.width), 0))

    with pytest.raises(CheckpointError, match="A class must accept its own settings"):
        describe({"one": Doubled(3)})


@pytest.mark.parametrize("custom", [[Scaled], {"Plain": Plain}, {"Scaled": Scaled()}, {1: Scaled}])
def test_custom_objects_are_dataclasses_by_name(custom):
    with pytest.raises(TypeError, match="custom_objects must map names to dataclasses"):
        check_custom(custom)


def described_layer(name, /, **settings):
    return {"class": name, "settings": settings}


def sequential(*places):
    return described_layer("layers.Sequential", layers={"tuple": [{"layer": place} for place in places]})


DENSE = described_layer("layers.Dense", units=3)


@pytest.mark.parametrize(
    "described",
    [
        None,
        [None],
        ["layers.Dense"],
        [DENSE | {"code": "1"}],
        [described_layer("layers.Danse", units=3)],
        [described_layer("layers.convolution")],
        [described_layer("layers.__builtins__")],
        [described_layer("layers._Pooling")],
        [described_layer("os.system", command="ls")],
        [described_layer("os", name="ls")],
        [described_layer("losses.Huber")],
        [described_layer(["layers", "Dense"], units=3)],
        [described_layer("layers.Dense", units=3, code="1")],
        [described_layer("layers.Dense", units={"layer": 0})],
        [DENSE, sequential(1)],
        [DENSE, sequential(-1)],
        [DENSE, sequential(True)],
        [described_layer("layers.Frozen", layer=DENSE)],
        [described_layer("layers.Dense", units={"float": "nam"})],
        [described_layer("layers.Dense", units={"tuple": {}})],
        [described_layer("layers.Dense", units={"unknown": 1})],
        [DENSE] * MAX_LAYERS + [sequential(*range(MAX_LAYERS))],
        [DENSE, *(sequential(i, i) for i in range(45))],  # 2⁴⁵ layers
        [DENSE, *(sequential(i) for i in range(60))],
    ],
    ids=range(24),
)
def test_hostile_descriptions_are_refused(described):
    with pytest.raises(CheckpointError):
        rebuild({"layers": described, "network": {"layer": 0}}, ["network"])


def test_deep_settings_are_refused():
    deep = 1
    for _ in range(200):
        deep = {"tuple": [deep]}

    with pytest.raises(CheckpointError, match="values at most 50 deep"):
        rebuild({"layers": [], "one": deep}, ["one"])
