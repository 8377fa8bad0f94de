"""Layers. Each is a frozen dataclass. `xpnet.layers.base.Layer` describes the protocol that they share."""

from typing import TYPE_CHECKING

from xpnet.lazy import lazy_names

if TYPE_CHECKING:  # the names of MODULES below, for editors and type checkers
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
    from xpnet.layers.attention import MultiHeadAttention, TransformerBlock
    from xpnet.layers.augmentation import RandomCrop, RandomFlip, RandomRotation, RandomTranslation
    from xpnet.layers.base import Container, Layer
    from xpnet.layers.batch_normalization import BatchNormalization
    from xpnet.layers.composition import Add, Concatenate, Parallel, Residual, TimeDistributed
    from xpnet.layers.convolution import Conv1D, Conv2D, Conv2DTranspose
    from xpnet.layers.dense import Dense
    from xpnet.layers.dropout import Dropout
    from xpnet.layers.embedding import Embedding, PositionEmbedding
    from xpnet.layers.frozen import Frozen
    from xpnet.layers.noise import GaussianNoise, SpatialDropout1D, SpatialDropout2D
    from xpnet.layers.normalization import GroupNormalization, LayerNormalization, RMSNormalization
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
    from xpnet.layers.recurrent import GRU, LSTM, Bidirectional, SimpleRNN
    from xpnet.layers.reshaping import ChannelsLast, Flatten, Identity, Permute, Rescaling, Reshape
    from xpnet.layers.resizing import UpSampling2D, ZeroPadding2D
    from xpnet.layers.sequential import Sequential

MODULES = {
    "activations": [
        "ELU",
        "GELU",
        "SELU",
        "Activation",
        "LeakyReLU",
        "LogSoftmax",
        "ReLU",
        "Sigmoid",
        "SiLU",
        "Softmax",
        "Softplus",
        "Tanh",
    ],
    "attention": ["MultiHeadAttention", "TransformerBlock"],
    "augmentation": ["RandomCrop", "RandomFlip", "RandomRotation", "RandomTranslation"],
    "base": ["Container", "Layer"],
    "batch_normalization": ["BatchNormalization"],
    "composition": ["Add", "Concatenate", "Parallel", "Residual", "TimeDistributed"],
    "convolution": ["Conv1D", "Conv2D", "Conv2DTranspose"],
    "dense": ["Dense"],
    "dropout": ["Dropout"],
    "embedding": ["Embedding", "PositionEmbedding"],
    "frozen": ["Frozen"],
    "noise": ["GaussianNoise", "SpatialDropout1D", "SpatialDropout2D"],
    "normalization": ["GroupNormalization", "LayerNormalization", "RMSNormalization"],
    "pooling": [
        "AveragePooling1D",
        "AveragePooling2D",
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "MaxPooling1D",
        "MaxPooling2D",
    ],
    "recurrent": ["GRU", "LSTM", "Bidirectional", "SimpleRNN"],
    "reshaping": ["ChannelsLast", "Flatten", "Identity", "Permute", "Rescaling", "Reshape"],
    "resizing": ["UpSampling2D", "ZeroPadding2D"],
    "sequential": ["Sequential"],
}

__getattr__, __dir__ = lazy_names(__name__, MODULES)

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "SELU",
    "Activation",
    "Add",
    "AveragePooling1D",
    "AveragePooling2D",
    "BatchNormalization",
    "Bidirectional",
    "ChannelsLast",
    "Concatenate",
    "Container",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Frozen",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "Identity",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPooling1D",
    "MaxPooling2D",
    "MultiHeadAttention",
    "Parallel",
    "Permute",
    "PositionEmbedding",
    "RMSNormalization",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SimpleRNN",
    "Softmax",
    "Softplus",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "Tanh",
    "TimeDistributed",
    "TransformerBlock",
    "UpSampling2D",
    "ZeroPadding2D",
]
