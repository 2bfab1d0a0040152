"""Widths by loops over skeleton and background pixels, and of drawn bars; recall by a loop over the mask's pixels."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.morphology import skeletonize

from wildfern.ssl.evaluation.metrics.width_recall import local_widths, recall_by_width


def blobs(seed, size=(18, 22), above=0.0):
    return gaussian_filter(np.random.default_rng(seed).standard_normal(size), 1.5) > above


def widths_by_a_loop(mask):
    """The possible widths at each mask pixel: several where skeleton pixels are equally near."""
    background = np.argwhere(~mask)
    depths = {
        tuple(at): min(math.dist(at, other) for other in background) for at in np.argwhere(skeletonize(mask)).tolist()
    }
    found = {}
    for place in map(tuple, np.argwhere(mask).tolist()):
        least = min(math.dist(place, at) for at in depths)
        found[place] = [2 * depth for at, depth in depths.items() if math.dist(place, at) <= least + 1e-9]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_widths_are_those_of_the_loop(seed):
    mask = blobs(seed)
    widths = local_widths(mask.astype(np.uint8))
    assert widths.dtype == np.float32
    assert (widths[~mask] == 0).all()
    for place, possible in widths_by_a_loop(mask).items():
        assert min(abs(widths[place] - one) for one in possible) < 1e-5


@pytest.mark.parametrize("width", range(1, 12))
def test_a_bar_has_its_width(width):
    mask = np.zeros((30, 60), bool)
    mask[9 : 9 + width, 10:50] = True
    middle = local_widths(mask)[9 : 9 + width, 20:40]
    assert (middle == width + width % 2).all()
    assert (local_widths(mask.T).T[9 : 9 + width, 20:40] == middle).all()
    mask[9 : 9 + width] = True  # through the image's borders, which are not its ends
    through = local_widths(mask)[9 : 9 + width]
    assert (np.abs(through - width) <= 1).all()


def test_a_bar_of_width_five_has_it_up_to_its_ends_within_one_pixel():
    mask = np.zeros((15, 40), bool)
    mask[5:10, 6:34] = True
    assert (np.abs(local_widths(mask)[mask] - 5) <= 1).all()


def test_empty_and_full_masks_have_widths():
    assert not local_widths(np.zeros((4, 5), bool)).any()
    full = local_widths(np.ones((5, 30), bool))
    assert (np.abs(full[:, 5:25] - 5) <= 1).all()
    assert local_widths(np.ones((1, 1), bool)) == 2


def by_a_loop(predicted, mask, widths, bands, region):
    found = {}
    for place in np.ndindex(mask.shape):
        if mask[place] and (region is None or region[place]):
            for band in bands:
                if band[0] < widths[place] <= band[1]:
                    found.setdefault(band, []).append(bool(predicted[place]))
    return {band: (sum(hits) / len(hits), len(hits)) for band, hits in found.items()}


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_that_of_the_loop(seed):
    mask, predicted, region = blobs(seed), blobs(seed) & blobs(seed + 9, above=-0.3), blobs(seed + 5, above=-0.3)
    names = {(0, 2): "recall_0_to_2_px", (2, 4): "recall_2_to_4_px", (4, 8): "recall_4_to_8_px"}
    names[8, math.inf] = "recall_over_8_px"
    own = np.random.default_rng(seed).choice([0, 1, 2, 2.5, 4, 7, 8, 9, 50], mask.shape)
    for widths in (None, own):
        for inside in (None, region):
            found = recall_by_width(predicted, mask, widths=widths, region=inside)
            expected = by_a_loop(predicted, mask, local_widths(mask) if widths is None else widths, names, inside)
            assert found == {names[band]: pytest.approx(expected[band]) for band in names if band in expected}
            assert all(type(share) is float and type(n) is int for share, n in found.values())


def test_thin_and_wide_bars_are_told_apart():
    mask, thin = np.zeros((2, 40, 60), bool)
    thin[3] = True
    mask[15:27] = True
    found = recall_by_width(mask, mask | thin)
    assert found == {"recall_0_to_2_px": (0, 60), "recall_over_8_px": (1, 720)}
    half = np.zeros_like(mask)
    half[:20] = True  # through the wide one, which stays wide
    assert recall_by_width(mask, mask | thin, region=half) == {
        "recall_0_to_2_px": (0, 60),
        "recall_over_8_px": (1, 300),
    }
    assert recall_by_width(mask, mask | thin, bands=(0, 2.5)) == {"recall_0_to_2.5_px": (0, 60)}
    assert recall_by_width(mask, np.zeros_like(mask)) == {}


def test_what_are_no_widths_is_refused():
    mask = np.eye(4, dtype=bool)
    for bands in ((), (1,), (2, 1), (0, 2, 2), (-1, 3), (0, math.nan)):
        with pytest.raises(ValueError, match="bands are at least two widths in pixels in ascending order"):
            recall_by_width(mask, mask, bands)
    with pytest.raises(ValueError, match=r"widths and mask are of one image, got \[4\] and \[4, 4\]"):
        recall_by_width(mask, mask, widths=np.ones(4))
    with pytest.raises(ValueError, match="contain NaN"):
        recall_by_width(mask, mask, widths=np.full((4, 4), np.nan))
    assert recall_by_width(mask, mask, widths=np.where(mask, 3, np.nan)) == {"recall_2_to_4_px": (1, 4)}
    with pytest.raises(ValueError, match="mask is bool or integers"):
        local_widths(np.zeros((4, 4)))
