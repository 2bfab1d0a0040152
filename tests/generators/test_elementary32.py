"""Single-precision functions against numpy's in double precision."""

import numpy as np
import pytest

from wildfern.generators.elementary32 import (
    angle_turns,
    clip01,
    cos_turns,
    fade,
    floor32,
    hash32,
    sin_turns,
    whole,
)

NUMBERS = np.concatenate([np.linspace(-3, 3, 401), [-1000.25, 999.75, 0.0, 1.0, -1.0, 0.5]]).astype(np.float32)


def test_whole_and_floor_round_down():
    assert [whole(x) for x in NUMBERS] == np.floor(NUMBERS).astype(int).tolist()
    assert [floor32(x) for x in NUMBERS] == np.floor(NUMBERS).tolist()


def test_sine_and_cosine_of_turns():
    turns = 2 * np.pi * NUMBERS.astype(float)
    np.testing.assert_allclose([sin_turns(x) for x in NUMBERS], np.sin(turns), atol=1e-5)
    np.testing.assert_allclose([cos_turns(x) for x in NUMBERS], np.cos(turns), atol=2e-5)


def test_angle_of_a_direction_in_all_octants():
    directions = np.linspace(-0.499, 0.499, 333)
    x, y = np.cos(2 * np.pi * directions).astype(np.float32), np.sin(2 * np.pi * directions).astype(np.float32)
    np.testing.assert_allclose([angle_turns(a, b) for a, b in zip(x, y, strict=True)], directions, atol=1e-5)
    assert angle_turns(np.float32(0), np.float32(0)) == 0


def test_clip_and_fade():
    np.testing.assert_array_equal([clip01(x) for x in NUMBERS], np.clip(NUMBERS, 0, 1))
    t = np.linspace(0, 1, 50, dtype=np.float32)
    np.testing.assert_allclose([fade(x) for x in t], 3 * t**2 - 2 * t**3, atol=1e-6)


def test_lattice_hashes_are_uniform_and_uncorrelated_between_neighbors():
    bits = np.array([[hash32(np.int32(i), np.int32(j), np.uint32(7)) for i in range(-40, 40)] for j in range(-40, 40)])
    assert np.unique(bits).size == bits.size
    for shift in range(32):
        bit = (bits >> shift) & 1
        assert bit.mean() == pytest.approx(0.5, abs=0.03)
        assert (bit[:, 1:] == bit[:, :-1]).mean() == pytest.approx(0.5, abs=0.03)
        assert (bit[1:] == bit[:-1]).mean() == pytest.approx(0.5, abs=0.03)
