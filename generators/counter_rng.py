"""Random numbers as a pure function of integers: SplitMix64 (Steele, Lea & Flood, 2014) used as a counter-based generator.

A *key* is a 64-bit hash of names and integers: a stream, a seed, an index. Draw j of a key is `mix(key + (j + 1) * GOLDEN)`.
There is no state, so any draw can be repeated in any order, on any number of threads or ranks. The numpy functions and those
for numba kernels (`mix64`, `draw64`, `uniform64`, `uniform32`) give the same bits.
"""

import hashlib

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_ONE = np.uint64(1)
_64_BITS = 2**64 - 1
_S11, _S40 = np.uint64(11), np.uint64(40)
_2_53 = 1.0 / 9007199254740992.0
_2_24 = np.float32(1.0 / 16777216.0)

Keys = NDArray[np.uint64]


@njit(inline="always")
def mix64(z):
    """SplitMix64's output function on one uint64 (numba)."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@njit(inline="always")
def draw64(key, draw):
    """64 random bits: draw number `draw` (uint64) of `key` (uint64) (numba)."""
    return mix64(key + (draw + _ONE) * GOLDEN)


@njit(inline="always")
def fold64(key, part):
    """A new key from `key` and one more uint64; `fold` for numba kernels."""
    return mix64(key ^ mix64(part + GOLDEN))


@njit(inline="always")
def uniform64(key, draw):
    """float64 in [0, 1) from the top 53 bits of a draw (numba)."""
    return np.float64(draw64(key, draw) >> _S11) * _2_53


@njit(inline="always")
def uniform32(key, draw):
    """float32 in [0, 1) from the top 24 bits of a draw (numba)."""
    return np.float32(draw64(key, draw) >> _S40) * _2_24


def _mix(z: Keys) -> Keys:
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


def fold(keys: Keys, parts: NDArray[np.integer] | int) -> Keys:
    """Mix one more integer into each key; uint64 arrays, broadcasting."""
    parts = np.atleast_1d(np.asarray(parts)).astype(np.uint64)
    return _mix(np.atleast_1d(np.asarray(keys, np.uint64)) ^ _mix(parts + GOLDEN))


def key(*parts: int | str) -> int:
    """A key (Python int < 2**64) from integers and strings, for example `key("ifs", seed)`."""
    folded = 0
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
        folded = fold_one(folded, part)
    return folded


def fold_one(key: int, part: int) -> int:
    """`fold` of one key, a Python int < 2**64: sooner than by arrays of one number."""
    return _mix_one(key ^ _mix_one(int(part) + int(GOLDEN)))


def _mix_one(z: int) -> int:
    z &= _64_BITS
    z = (z ^ (z >> 30)) * int(_M1) & _64_BITS
    z = (z ^ (z >> 27)) * int(_M2) & _64_BITS
    return z ^ (z >> 31)


def bits(keys: Keys, draws: int) -> NDArray[np.uint64]:
    """The first `draws` 64-bit draws of every key: uint64[..., draws]."""
    counters = np.arange(1, draws + 1, dtype=np.uint64) * GOLDEN
    return _mix(np.asarray(keys, np.uint64)[..., None] + counters)


def uniform(keys: Keys, draws: int) -> NDArray[np.float64]:
    """The first `draws` uniforms of every key: float64[..., draws] in [0, 1)."""
    return (bits(keys, draws) >> _S11).astype(np.float64) * _2_53


def integers(keys: Keys, draws: int, high: int) -> NDArray[np.int64]:
    """The first `draws` integers of every key: int64[..., draws] in [0, high), for `high` up to 2**32."""
    return ((bits(keys, draws) >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64)
