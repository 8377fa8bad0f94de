"""Randomness that agrees on every backend: one seed is one run.

Initial weights and shuffles are drawn on the host, by NumPy's Philox generator, and moved. What is random inside a
training step (dropout masks) comes from a counter-based integer hash written in Array API integer operations: a pure
function of (seed, step, layer, element), bit-identical on every library, with nothing to move and no state to keep.

The carrier is int32, the one integer type on which every library multiplies with wrap-around; its right shift copies
the sign, so `_shift` masks it off. The hash is the two-round multiply-xorshift of C. Wellons ("Prospecting for hash
functions", 2018), with a second key word between the rounds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backend import device, namespace, size
from xpnet.tree import Array

PURPOSES = ("weights", "shuffle", "dropout")


def host_rng(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """A generator of its own for each (seed, purpose, position): drawing from one never moves another."""
    return np.random.Generator(np.random.Philox(_seed_sequence(seed, purpose, *position)))


def step_keys(seed: int, steps: np.ndarray | range) -> np.ndarray:
    """The random key of each training step: int32 of shape (steps, 2), on the host."""
    words = _seed_sequence(seed, "dropout").generate_state(2).view(np.int32)
    return _mix(np.asarray(steps).astype(np.int32)[:, None] * _int32(0x9E3779B1) + words)


def fold_in(key: Array, position: int) -> Array:
    """The key of the layer at `position`, from its container's key."""
    if key is None:
        raise TypeError(
            "A layer here draws at random and was given no key. Pass key=..., a row of xpnet.random.step_keys(seed, steps)."
        )
    return _mix(key + _int32(0x9E3779B1 * (position + 1)))


def uniform_bits(key: Array, count: int, device: Any) -> Array:
    """`count` integers, uniform in 0 .. 65535, as int32: 16 bits an element, two elements a hash."""
    xp = namespace(key)
    word = xp.arange((count + 1) // 2, dtype=xp.int32, device=device)
    word *= _int32(0x9E3779B1)
    word += key[0:1]
    word = _mix(word, key[1:2])
    return xp.concat((word & 0xFFFF, (word >> 16) & 0xFFFF))[:count]


def bernoulli(key: Array, probability: float, like: Array) -> Array:
    """1 with `probability` (rounded to 1/65536), else 0; shape, dtype and device as `like`."""
    xp = namespace(like)
    bits = uniform_bits(key, size(like), device(like))
    return xp.reshape(xp.astype(bits < round(probability * 65536), like.dtype), like.shape)


def normal(key: Array, like: Array) -> Array:
    """Standard normal numbers; shape, dtype and device as `like`.

    Box and Muller: √(-2 log u) cos 2πv and √(-2 log u) sin 2πv, from 16 bits each for u and v, so none exceeds 4.9.
    One hash for two numbers; libraries' log, cos and sin may differ in the last place, and these numbers with them.
    """
    xp = namespace(like)
    half = (size(like) + 1) // 2
    bits = xp.astype(uniform_bits(key, 2 * half, device(like)), like.dtype)
    radius = xp.sqrt(-2 * xp.log((bits[:half] + 0.5) / 65536))
    angle = bits[half:] * (2 * math.pi / 65536)
    pairs = xp.concat((radius * xp.cos(angle), radius * xp.sin(angle)))
    return xp.reshape(pairs[: size(like)], like.shape)


def _mix(x: Array, key: Array | int = 0) -> Array:
    x = x ^ _shift(x, 16)
    x *= _int32(0x7FEB352D)
    x ^= _shift(x, 15)
    x ^= key
    x *= _int32(0x846CA68B)
    x ^= _shift(x, 16)
    return x


def _shift(x: Array, bits: int) -> Array:
    """Right shift of int32 that fills with zeros, not with the sign."""
    return (x >> bits) & (0xFFFFFFFF >> bits)


def _int32(value: int) -> int:
    """The signed number with the same low 32 bits."""
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _seed_sequence(seed: int, purpose: str, *position: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), *position))
