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
from xpnet.layers.augmentation import RandomCrop, RandomFlip, RandomRotation, RandomShift
from xpnet.layers.base import Layer
from xpnet.layers.composition import Add, Concatenate, Parallel, Residual, TimeDistributed
from xpnet.layers.dense import Dense
from xpnet.layers.dropout import Dropout
from xpnet.layers.noise import GaussianNoise, SpatialDropout1D, SpatialDropout2D
from xpnet.layers.normalization import BatchNormalization, GroupNormalization, LayerNormalization, RMSNormalization
from xpnet.layers.reshaping import Flatten, Identity, Rescaling, Reshape
from xpnet.layers.sequential import Sequential

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Add",
    "BatchNormalization",
    "Concatenate",
    "Dense",
    "Dropout",
    "Flatten",
    "GaussianNoise",
    "GroupNormalization",
    "Identity",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "LogSoftmax",
    "Parallel",
    "RMSNormalization",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomShift",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "Tanh",
    "TimeDistributed",
]
