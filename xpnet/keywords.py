"""Errors for unknown keywords of constructors, such as ``Adam(lr=0.1)``, which say what to write instead."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Any

from xpnet.checks import plain, unknown_name

ELSEWHERE = {  # keywords of Keras, PyTorch and scikit-learn -> ours
    "lr": "learning_rate",
    "learningrateinit": "learning_rate",
    "initiallr": "initial_learning_rate",
    "decay": "weight_decay",
    "betas": "beta_1",
    "beta1": "beta_1",
    "eps": "epsilon",
    "maxnorm": "global_clipnorm",
    "kernelinitializer": "weight_initializer",
    "embeddingsinitializer": "weight_initializer",
    "bias": "use_bias",
    "outfeatures": "units",
    "hiddensize": "units",
    "outchannels": "filters",
    "stride": "strides",
    "dilation": "dilation_rate",
    "p": "rate",
    "std": "stddev",
    "numembeddings": "input_dim",
    "embeddingdim": "output_dim",
    "nhead": "num_heads",
    "affine": "scale",
    "shape": "target_shape",
    "tmax": "decay_steps",
    "milestones": "boundaries",
    "iscausal": "use_causal_mask",
}
_SIZE = "The input size comes with the data. Remove this keyword."
_PENALTY = 'Pass penalties to the optimizer, as in Adam(l2={"0": 1e-4}).'
REMEDIES = {  # their keywords without a counterpart here -> what to do instead
    "inputshape": _SIZE,
    "infeatures": _SIZE,
    "inchannels": _SIZE,
    "inputsize": _SIZE,
    "kernelregularizer": _PENALTY,
    "biasregularizer": _PENALTY,
    "trainable": "Wrap the layer in Frozen(layer), or call model.freeze(path).",
    "name": "summary() shows each layer's path, which serves as its name.",
    "dtype": 'Set the type for all layers, as in set_backend("numpy", dtype="float64").',
    "device": 'Set the device for all layers, as in set_backend("torch", device="cuda").',
    "inplace": "Remove this keyword.",
    "gradientaccumulationsteps": "Pass micro_batch_size to fit, whose batch_size counts the rows of a step.",
    "batchfirst": "The batch is always the first axis. Remove this keyword.",
}


class Settings(type):
    """The type of classes whose objects consist of settings."""

    # Without an annotation of the return type, type checkers read the signature of __init__
    def __call__(cls, *args: Any, **settings: Any):
        try:
            return super().__call__(*args, **settings)
        except TypeError:
            parameters = cls.__signature__.parameters
            unknown = [name for name in settings if name not in parameters]
            if not unknown or any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                raise
            raise _unknown_keyword(cls.__name__, unknown[0], list(parameters)) from None

    @property
    def __signature__(cls) -> inspect.Signature:
        """The signature of the class, which `inspect` would otherwise take from `__call__`."""
        if cls.__init__ is object.__init__:  # type: ignore[misc]
            return inspect.Signature()
        whole = inspect.signature(cls.__init__)  # type: ignore[misc]
        return whole.replace(parameters=list(whole.parameters.values())[1:])


class AbstractSettings(Settings, ABCMeta):
    """The same for classes with abstract methods."""


def _unknown_keyword(owner: str, name: str, names: list[str]) -> TypeError:
    remedy = f" {REMEDIES[plain(name)]}" if plain(name) in REMEDIES else ""
    if not names:
        return TypeError(f"{owner} has no settings.{remedy} Received: {name!r}")
    elsewhere = {theirs: f'"{ours}"' for theirs, ours in ELSEWHERE.items() if ours in names}
    return TypeError(
        str(unknown_name(f"{owner} has no setting {name!r}.{remedy} Its settings are", name, names, elsewhere))
    )
