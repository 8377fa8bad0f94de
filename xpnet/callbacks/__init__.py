"""Callbacks of `fit`, named as in Keras."""

from xpnet.callbacks.base import Callback
from xpnet.callbacks.stopping import EarlyStopping

__all__ = ["Callback", "EarlyStopping"]
