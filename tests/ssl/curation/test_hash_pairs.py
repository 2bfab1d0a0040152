"""Pairs of hashes against a double loop, and differences of small images against plain means."""

import numpy as np
import pytest

from wildfern.ssl.curation import hash_pairs as module
from wildfern.ssl.curation.hash_pairs import bits_of, hash_pairs, same_small
from wildfern.ssl.curation.manifest import CurationError


def by_loop(hashes, bits, others=None):
    mine = [int(one) for one in hashes]
    if others is None:
        return [
            [i, j] for i in range(len(mine)) for j in range(i + 1, len(mine)) if (mine[i] ^ mine[j]).bit_count() <= bits
        ]
    return [
        [i, j] for i, one in enumerate(mine) for j, other in enumerate(others) if (one ^ int(other)).bit_count() <= bits
    ]


def near_hashes(count: int, centers: int, most_bits: int, seed: int) -> np.ndarray:
    """Hashes that differ from a few random ones in up to `most_bits` bits."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 2**64, centers, dtype=np.uint64)[rng.integers(centers, size=count)]
    for n in range(count):
        for bit in rng.choice(64, rng.integers(most_bits + 1), replace=False):
            found[n] ^= np.uint64(1) << np.uint64(bit)
    return found


@pytest.mark.parametrize("bits", [0, 1, 2, 4, 6, 8])
def test_pairs_are_those_of_a_double_loop(bits):
    for seed, (count, centers) in enumerate([(0, 1), (1, 1), (2, 1), (60, 5), (120, 30), (90, 1)]):
        hashes = near_hashes(count, centers, 7, seed)
        found = hash_pairs(hashes, bits)
        assert found.dtype == np.int64
        assert found.shape == (len(found), 2)
        assert found.tolist() == by_loop(hashes, bits)


@pytest.mark.parametrize("bits", [0, 2, 4, 6, 8])
def test_pairs_with_others_are_those_of_a_double_loop(bits):
    for seed, (count, more) in enumerate([(0, 0), (0, 5), (5, 0), (1, 1), (70, 40), (20, 90)]):
        every = near_hashes(count + more, 6, 6, 100 + seed)
        hashes, others = every[:count], every[count:]
        assert hash_pairs(hashes, bits, others).tolist() == by_loop(hashes, bits, others)


def test_every_number_of_bits_counts_wherever_they_are():
    for bits in range(9):
        for shift in range(64):
            near = sum(1 << ((shift + 7 * n) % 64) for n in range(bits))
            far = near | 1 << ((shift + 7 * bits) % 64)
            assert hash_pairs(np.array([0, near], np.uint64), bits).tolist() == [[0, 1]]
            assert hash_pairs(np.array([0, far], np.uint64), bits).tolist() == []


def test_many_equal_hashes():
    hashes = np.array([5] * 300 + [2**63 + 5] * 200 + [2**64 - 1] * 3, np.uint64)
    for bits, expected in ((0, 300 * 299 // 2 + 200 * 199 // 2 + 3), (1, 500 * 499 // 2 + 3)):
        found = hash_pairs(hashes, bits)
        assert len(found) == expected
        assert len(np.unique(found, axis=0)) == expected  # each once, although all parts are equal
        assert (found[:, 0] < found[:, 1]).all()
        assert (np.diff(found[:, 0] * 1000 + found[:, 1]) > 0).all()
    assert len(hash_pairs(hashes[:300], 4, hashes[300:])) == 300 * 200


def test_the_limit_of_pairs(monkeypatch):
    hashes = np.zeros(101, np.uint64)
    monkeypatch.setattr(module, "MOST_PAIRS", 5050)
    assert len(hash_pairs(hashes, 6)) == 5050
    monkeypatch.setattr(module, "MOST_PAIRS", 5049)
    with pytest.raises(CurationError, match=r"more than 5,049 pairs .* set near_duplicate.bits lower"):
        hash_pairs(hashes, 6)
    spread = np.array([1 << n for n in range(63)], np.uint64)  # two bits apart: many parts add up
    monkeypatch.setattr(module, "MOST_PAIRS", 63 * 62 // 2)
    assert len(hash_pairs(spread, 2)) == 63 * 62 // 2
    monkeypatch.setattr(module, "MOST_PAIRS", 63 * 62 // 2 - 1)
    with pytest.raises(CurationError):
        hash_pairs(spread, 2)


@pytest.mark.parametrize("bits", [-1, 9, 64])
def test_bits_out_of_range(bits):
    with pytest.raises(CurationError, match=f"bits must be 0 to 8, got {bits}"):
        hash_pairs(np.zeros(2, np.uint64), bits)


def test_arrays_of_other_kinds():
    expected = [[0, 2]]
    for hashes in ([7, 2**64 - 1, 5], np.array([7, 99999, 5]), np.array([7, 1, 99999, 1, 5], np.uint64)[::2]):
        found = hash_pairs(np.asarray(hashes, np.uint64), 1)
        assert found.tolist() == expected
    read_only = np.array([7, 99999, 5], np.uint64)
    read_only.flags.writeable = False
    assert hash_pairs(read_only, 1).tolist() == expected
    large = np.array([2**63 + 1], np.uint64)  # would be rounded as a float
    assert hash_pairs(large, 0, np.array([2**63], np.uint64)).tolist() == []
    assert hash_pairs(large, 1, [2**63]).tolist() == [[0, 0]]


def test_bits_of_a_number():
    rng = np.random.default_rng(0)
    for x in [0, 1, 2**63, 2**64 - 1, *rng.integers(0, 2**64, 200, dtype=np.uint64).tolist()]:
        assert bits_of(np.uint64(x)) == x.bit_count()


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_differences_of_small_images_are_means():
    one, other = images(10, 0), images(10, 1)
    found = same_small(one, other)
    expected = np.abs(one.astype(np.float64) - other).mean((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(same_small(other, one), expected, rtol=1e-6)
    assert (same_small(one, one) == 0).all()
    assert same_small(one[:0], other[:0]).shape == (0,)


def test_a_gray_copy_is_compared_by_luma():
    color = images(10, 2)
    luma = color @ np.array([0.299, 0.587, 0.114])
    gray = np.repeat(np.rint(luma)[..., None], 3, 3).astype(np.uint8)
    assert np.abs(color.astype(float) - gray).mean() > 20
    for found in (same_small(color, gray), same_small(gray, color)):
        np.testing.assert_allclose(found, np.abs(luma - np.rint(luma)).mean((1, 2)), atol=1e-4)
    almost = gray.copy()
    almost[:, 0, 0, 0] = np.where(gray[:, 0, 0, 0] > 100, gray[:, 0, 0, 0] - 2, gray[:, 0, 0, 0] + 2)
    assert (same_small(color, almost) < 0.5).all()  # as a JPEG may make it
    almost[:, 0, 0, 0] = np.where(gray[:, 0, 0, 0] > 100, gray[:, 0, 0, 0] - 3, gray[:, 0, 0, 0] + 3)
    assert (same_small(color, almost) > 20).all()  # has a color
