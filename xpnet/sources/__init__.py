"""Where batches come from: arrays on the device, and data that are read while a model trains."""

from xpnet.sources.arrays import ArraySource, OwnOrders, Slices
from xpnet.sources.base import Batches, Chunk, InOrder, Source

__all__ = ["ArraySource", "Batches", "Chunk", "InOrder", "OwnOrders", "Slices", "Source"]
