"""Counter-based random numbers: numpy, numba and plain Python give the same bits."""

import numpy as np
from numba import njit

from wildfern.generators import counter_rng as rng

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """The generator's output for a state, in Python's own integers."""
    z = state & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


@njit
def draws_in_a_kernel(keys, bits, doubles, singles):
    for i in range(keys.size):
        for j in range(bits.shape[1]):
            draw = np.uint64(j)
            bits[i, j] = rng.draw64(keys[i], draw)
            doubles[i, j] = rng.uniform64(keys[i], draw)
            singles[i, j] = rng.uniform32(keys[i], draw)


@njit
def folds_in_a_kernel(keys, parts, out):
    for i in range(keys.size):
        out[i] = rng.fold64(keys[i], parts[i])


KEYS = np.array([0, 1, 2**63, MASK, rng.key("ifs", 7)], np.uint64)


def test_numpy_and_kernel_draws_are_those_of_splitmix64():
    expected = [[splitmix64(int(k) + (j + 1) * 0x9E3779B97F4A7C15) for j in range(9)] for k in KEYS]
    bits, doubles, singles = np.empty((5, 9), np.uint64), np.empty((5, 9)), np.empty((5, 9), np.float32)
    draws_in_a_kernel(KEYS, bits, doubles, singles)
    assert bits.tolist() == expected == rng.bits(KEYS, 9).tolist()
    assert doubles.tolist() == rng.uniform(KEYS, 9).tolist() == [[(b >> 11) / 2**53 for b in row] for row in expected]
    assert singles.tolist() == [[(b >> 40) / 2**24 for b in row] for row in expected]


def test_published_splitmix64_figures():
    # First outputs for seed 1234567 as listed with the generator's reference implementations.
    assert rng.bits(np.array([1234567], np.uint64), 3)[0].tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_folding_agrees_and_separates():
    parts = np.array([0, 1, -1, 10**15, 5], np.int64)
    out = np.empty(5, np.uint64)
    folds_in_a_kernel(KEYS, parts.astype(np.uint64), out)
    assert out.tolist() == rng.fold(KEYS, parts).tolist()
    grid = rng.fold(rng.fold(KEYS[:1], np.arange(300))[:, None], np.arange(300)[None])
    assert np.unique(grid).size == 300 * 300


def test_keys_tell_words_and_numbers_apart():
    names = [(), (0,), (0, 0), ("ifs", 1), ("ifs", 2), ("1",), (1,), (1, "ifs")]
    assert len({rng.key(*parts) for parts in names}) == len(names)
    assert rng.key("ifs", -1) == rng.key("ifs", 2**64 - 1)


def test_integers_cover_their_range_evenly():
    drawn = rng.integers(np.arange(1000, dtype=np.uint64), 60, 6)
    # 60000 draws of 6 values: each is expected 10000 times, standard deviation 91.
    assert np.abs(np.bincount(drawn.ravel(), minlength=6) - 10_000).max() < 5 * 91
