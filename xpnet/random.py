"""Random numbers that agree on every backend, so that a seed determines the run.

NumPy's Philox generator draws initial weights and shuffles on the host, and the backend moves them to the device. Random
numbers inside a training step, such as dropout masks, come from a counter-based integer hash, written in Array API integer
operations. The hash is a pure function of (seed, step, layer, element). It is bit-identical in every library and needs
neither transfers nor stored state.

The hash uses int32, the only integer type whose products wrap around in every library. A right shift of int32 copies the
sign bit, so `_shift` masks it off. The hash is the two-round multiply-xorshift of C. Wellons ("Prospecting for hash
functions", 2018), with a second key word between the rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.backend import device, namespace, size
from xpnet.tree import Array

Generator = np.random.Generator  # draws initial parameters, on the host
PURPOSES = ("weights", "shuffle", "dropout")


def host_rng(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """Return a separate generator for each (seed, purpose, position); drawing from one does not affect another."""
    return np.random.Generator(np.random.Philox(_seed_sequence(seed, purpose, *position)))


class ShapesOnly(np.random.Generator):
    """A generator for computing only shapes: with it, `xpnet.initializers.draw` returns `array(shape)` and draws nothing.

    Parameters
    ----------
    limit : float, default inf
        The largest number of values in one array, so that a file cannot describe layers larger than itself.
    """

    def __init__(self, limit: float = math.inf) -> None:
        super().__init__(np.random.Philox(0))
        self.limit = limit

    def spawn(self, n_children: int) -> list:
        return [self] * n_children

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of any size that takes the memory of one number. It is writable, like an array that was drawn."""
        if math.prod(shape) > self.limit:
            raise ValueError(f"A parameter may have at most {self.limit:,} values. Received: shape {shape}")
        return np.lib.stride_tricks.as_strided(np.zeros(1), shape, (0,) * len(shape))


def step_keys(seed: int, steps: np.ndarray | range) -> np.ndarray:
    """Return the random key of each training step: int32 of shape (steps, 2), on the host."""
    words = _seed_sequence(seed, "dropout").generate_state(2).view(np.int32)
    return _mix(np.asarray(steps).astype(np.int32)[:, None] * _int32(0x9E3779B1) + words)


@dataclass(frozen=True)
class RowsKey:
    """A key for some rows of a batch. They draw the numbers that they would draw as part of the whole batch.

    Attributes
    ----------
    words : array
        The key of the batch.
    first, count : int
        The number of the first row, and the number of rows.
    total : int
        The number of rows in the batch.
    """

    words: Array
    first: Any
    count: int
    total: int

    def part(self, begin: int, end: int) -> RowsKey:
        """Return the key for some of these rows."""
        return replace(self, first=self.first + begin, count=end - begin)

    def place(self, size: int) -> tuple[Any, int]:
        """Return the number of the first element, and of all elements in the batch, if these rows have `size` elements."""
        in_row = size // self.count
        return self.first * in_row, self.total * in_row


def fold_in(key: Any, position: int) -> Any:
    """Derive the key of the layer at `position` from its container's key."""
    if isinstance(key, RowsKey):
        return replace(key, words=fold_in(key.words, position))
    if key is None:
        raise TypeError(
            "A layer that draws random numbers needs a key. Pass key=..., a row of xpnet.random.step_keys(seed, steps). "
            "Received: key=None"
        )
    return _mix(key + _int32(0x9E3779B1 * (position + 1)))


def uniform_bits(key: Any, count: int, device: Any) -> Array:
    """Return `count` int32 numbers, uniform in 0 .. 65535: 16 bits for each element.

    The first half of all elements takes the low bits of hash number 0, 1, ..., and the second half takes the high bits.
    """
    if isinstance(key, RowsKey):
        word, is_high = _words_of_rows(key, count, device)
        return namespace(word).where(is_high, _shift(word, 16), word & 0xFFFF)
    return namespace(key).concat(bit_pairs(key, (count + 1) // 2, device))[:count]


def bit_pairs(key: Any, rows: int, device: Any) -> tuple[Array, Array]:
    """Return two int32 numbers for each row of a batch, uniform in 0 .. 65535, as two arrays: one hash for each row."""
    words, first = (key.words, key.place(rows)[0]) if isinstance(key, RowsKey) else (key, 0)
    number = namespace(words).arange(rows, dtype=namespace(words).int32, device=device)
    if isinstance(key, RowsKey):
        number += first
    word = _hash(words, number)
    return word & 0xFFFF, _shift(word, 16)


def _words_of_rows(key: RowsKey, count: int, device: Any) -> tuple[Array, Array]:
    """Return the hash of each of `count` elements of some rows, and whether the element is in the second half of all."""
    xp = namespace(key.words)
    first, total = key.place(count)
    number = xp.arange(count, dtype=xp.int32, device=device)
    number += first
    half = (total + 1) // 2
    is_high = number >= half
    return _hash(key.words, number - half * xp.astype(is_high, xp.int32)), is_high


def _hash(key: Array, number: Array) -> Array:
    number *= _int32(0x9E3779B1)
    number += key[0:1]
    return _mix(number, key[1:2])


def bernoulli(key: Any, probability: float, like: Array) -> Array:
    """Draw 1 with `probability` (rounded to 1/65536), else 0, with the shape, dtype and device of `like`."""
    xp = namespace(like)
    bits = uniform_bits(key, size(like), device(like))
    return xp.reshape(xp.astype(bits < round(probability * 65536), like.dtype), like.shape)


def normal(key: Any, like: Array) -> Array:
    """Draw standard normal numbers with the shape, dtype and device of `like`.

    The Box-Muller transform gives √(-2 log u) cos 2πv and √(-2 log u) sin 2πv. u and v have 16 bits each, from one hash, so
    no absolute value exceeds 4.9. Libraries round log, cos and sin differently, so the numbers may differ in the last digit.
    """
    xp = namespace(like)
    count = size(like)
    if isinstance(key, RowsKey):
        word, is_second = _words_of_rows(key, count, device(like))
        radius, angle = _polar(word & 0xFFFF, _shift(word, 16), like.dtype)
        return xp.reshape(radius * xp.where(is_second, xp.sin(angle), xp.cos(angle)), like.shape)
    radius, angle = _polar(*bit_pairs(key, (count + 1) // 2, device(like)), like.dtype)
    pairs = xp.concat((radius * xp.cos(angle), radius * xp.sin(angle)))
    return xp.reshape(pairs[:count], like.shape)


def _polar(u: Array, v: Array, dtype: Any) -> tuple[Array, Array]:
    xp = namespace(u)
    radius = xp.sqrt(-2 * xp.log((xp.astype(u, dtype) + 0.5) / 65536))
    return radius, xp.astype(v, dtype) * (2 * math.pi / 65536)


def _mix(x: Array, key: Array | int = 0) -> Array:
    x = x ^ _shift(x, 16)
    x *= _int32(0x7FEB352D)
    x ^= _shift(x, 15)
    x ^= key
    x *= _int32(0x846CA68B)
    x ^= _shift(x, 16)
    return x


def _shift(x: Array, bits: int) -> Array:
    """Shift an int32 right and fill with zeros, not with the sign."""
    return (x >> bits) & (0xFFFFFFFF >> bits)


def _int32(value: int) -> int:
    """Return the signed integer with the same low 32 bits."""
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _seed_sequence(seed: int, purpose: str, *position: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), *position))
