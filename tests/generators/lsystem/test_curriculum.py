"""Widths and contrasts that a curriculum draws, against streams with the spans written out."""

import numpy as np
import pytest

from wildfern.generators.lsystem.curriculum import progress
from wildfern.generators.lsystem.lsystem import LSystemStream

WIDTH, CONTRAST = (0.01, 0.09), (0.2, 1.0)
SPANS = {"size": 32, "width": WIDTH, "contrast": CONTRAST, "background": "texture", "color": "texture"}
LENGTH = 1000


def eased(t, low, high):
    return low + 0.5 * (1.0 - t) * (high - low), high


def arrays(stream, index):
    return list(stream.batch([index]).arrays().values())


@pytest.mark.parametrize(
    ("index", "t"),
    [(-5, 0.0), (0, 0.0), (1, 0.001), (LENGTH // 2, 0.5), (LENGTH, 1.0), (LENGTH + 1, 1.0), (2**40, 1.0), (2**62, 1.0)],
)
def test_a_sample_is_that_of_the_eased_spans(index, t):
    assert progress(index, LENGTH) == t
    assert progress(index, 0) == 1.0
    stream = LSystemStream(**SPANS, curriculum=LENGTH)
    written_out = SPANS | {"width": eased(t, *WIDTH), "contrast": eased(t, *CONTRAST)}
    for found, expected in zip(arrays(stream, index), arrays(LSystemStream(**written_out), index), strict=True):
        np.testing.assert_array_equal(found, expected)
    whole = arrays(LSystemStream(**SPANS), index)
    same = all((a == b).all() for a, b in zip(arrays(stream, index), whole, strict=True))
    assert same == (t == 1.0)


@pytest.mark.parametrize(("index", "low"), [(0, 0.05), (LENGTH // 2, 0.03), (LENGTH, 0.01), (2**40, 0.01)])
def test_widths_fill_their_span(index, low):
    """Of the first branches of 300 streams."""
    arguments = {"size": 256, "width": WIDTH, "taper": False, "bracketed": 0.0, "curriculum": LENGTH}
    found = [LSystemStream(seed=seed, **arguments).segments(index)[0, 4] / 256 for seed in range(300)]
    step = 0.05 * (WIDTH[1] - low)
    assert low <= min(found) < low + step
    assert WIDTH[1] - step < max(found) <= WIDTH[1]
    assert np.mean(found) == pytest.approx(0.5 * (low + WIDTH[1]), abs=step)


@pytest.mark.parametrize(("index", "low"), [(0, 0.6), (LENGTH // 2, 0.4), (LENGTH, 0.2), (2**40, 0.2)])
def test_contrasts_fill_their_span(index, low):
    """Of 300 streams of black branches on white: the darkest pixel has lost the contrast's share of white."""
    look = {"background": "white", "softness": 0.0, "variation": 0.0, "blur": False, "noise": 0.0}
    wide = {"size": 32, "width": (0.1, 0.1), "contrast": CONTRAST, "curriculum": LENGTH}
    darkest = np.array([LSystemStream(seed=seed, **wide, **look).batch([index]).images.min() for seed in range(300)])
    found = (255 - darkest.astype(float)) / (255 - 40)
    step = 0.05 * (1 - low)
    assert low - 0.005 <= found.min() < low + step
    assert 1 - step < found.max() <= 1
    assert np.mean(found) == pytest.approx(0.5 * (low + 1), abs=step)


@pytest.mark.parametrize("curriculum", [-1, 2**40 + 1])
def test_a_curriculum_ends_before_test_splits_begin(curriculum):
    with pytest.raises(ValueError, match=f"curriculum must lie between 0 and {2**40}, not {curriculum}"):
        LSystemStream(curriculum=curriculum)
