"""Layers. Each is a frozen dataclass; see `xpnet.layers.base.Layer` for the protocol they share."""

from xpnet.layers.activations import (
    ELU,
    GELU,
    SELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from xpnet.layers.base import Layer
from xpnet.layers.dense import Dense
from xpnet.layers.dropout import Dropout
from xpnet.layers.reshaping import Flatten, Identity, Rescaling, Reshape
from xpnet.layers.sequential import Sequential

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Dense",
    "Dropout",
    "Flatten",
    "Identity",
    "Layer",
    "LeakyReLU",
    "LogSoftmax",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]
