"""Numbers that tell faulty images: brightness, contrast, sharpness, likeness to a page of text or a screenshot."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.ssl.curation.box_resize import box_resize
from wildfern.ssl.curation.examined import Examined, examine
from wildfern.ssl.curation.perceptual_hash import perceptual_hash
from wildfern.ssl.data.base import DataError

EXAMINED = 256  # pixels of the longer side that an image is shrunk to
_PAPER = 24.0  # of luma: what is that near to the background belongs to it
_INK = 60.0  # of luma: what is that much darker is ink
_LEVELS = np.arange(256.0)
_LEAST = 48  # pixels of the shorter side: smaller images have no lines that can be seen


class Values(NamedTuple):
    """The columns of the manifest with these names."""

    brightness: float
    contrast: float
    dark_percentile: float
    light_percentile: float
    sharpness: float
    page: float
    screenshot: float
    phash: int
    phash_quality: float
    small: bytes


def values_of(pixels: NDArray[np.uint8]) -> Values:
    """Values of an image uint8[H, W, 3]. All but `small` and `screenshot` are of luma (ITU-R 601), at most 256 pixels a side.

    - sharpness: standard deviation of the Laplacian, relative to the contrast; 0 for a flat image.
    - phash_quality: standard deviation of the 32 x 32 pixels that the hash is of; featureless images have arbitrary hashes.
    - screenshot: the share of pixels that equal their right and their lower neighbor. Near 1 for what programs draw: windows,
      diagrams, cartoons. In photographs only overexposed areas are like that. About 128 x 128 pixels of the full image are
      compared, as shrinking would blend neighbors; 0 for a side of less than 64.
    - dark_percentile: 99 % of the pixels are at most this bright, so that it is low for a dark image. light_percentile: 95 % are
      at least this bright, so that it is high for a light one.

    Raises DataError for arrays of another shape or type, and for an image without pixels.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size or pixels.dtype != np.uint8:
        raise DataError(f"an image must be uint8[H, W, 3], got {pixels.dtype}{list(pixels.shape)}")
    shrunk = pixels
    if (factor := max(pixels.shape) // (2 * EXAMINED)) > 1:
        shrunk = np.asarray(Image.fromarray(pixels).reduce(factor))
    if (longest := max(shrunk.shape)) > EXAMINED:
        height, width = (max(1, round(side * EXAMINED / longest)) for side in shrunk.shape[:2])
        shrunk = box_resize(shrunk, width, height)
    shorter = min(pixels.shape[:2])
    found = examine(pixels, shrunk, max(1, shorter // 128))
    histogram, size = found.histogram.astype(np.float64), found.luma.size
    shares = histogram.cumsum() / size
    total, squares = histogram @ _LEVELS, histogram @ _LEVELS**2  # exact, in any order
    contrast = math.sqrt(size * squares - total**2) / size
    hashed = found.hashed.astype(np.float64)
    return Values(
        brightness=float(total / size),
        contrast=contrast,
        dark_percentile=float(np.searchsorted(shares, 0.99)),
        light_percentile=float(np.searchsorted(shares, 0.05, "right")),
        sharpness=_sharpness(found, contrast),
        page=page_score(shrunk, found.luma, histogram),
        screenshot=0.0 if shorter < 64 else found.equal / found.sampled,
        phash=perceptual_hash(hashed),
        phash_quality=float(hashed.std()),
        small=found.small.tobytes(),
    )


def _sharpness(found: Examined, contrast: float) -> float:
    height, width = found.luma.shape
    if min(height, width) < 3 or contrast < 1e-3:
        return 0.0
    inner = (height - 2) * (width - 2)
    variance = found.laplacian_squares / inner - (found.laplacian / inner) ** 2
    return math.sqrt(max(0.0, variance)) / contrast


def page_score(shrunk: NDArray[np.uint8], luma: NDArray[np.uint8], histogram: NDArray[np.float64]) -> float:
    """How much uint8[H, W, 3], its luma uint8[H, W] and the histogram of this look like a page of text, in 0 to 1.

    The product of five shares: of light paper, of pixels in its shade (a page has more than half), of colorless pixels, of ink
    (little), and of lines of text: rows or, for a page on its side, columns of broken ink between empty ones. Lines are looked
    for in strips of 64 pixels, in which those of a page that is a little askew do not overlap.
    """
    if min(luma.shape) < _LEAST:
        return 0.0
    smooth = np.convolve(histogram, np.ones(9), "same")
    paper = int(smooth.argmax())
    levels = _LEVELS - paper
    share = float(histogram[np.abs(levels) <= _PAPER].sum() / histogram.sum())
    ink_share = float(histogram[levels <= -_INK].sum() / histogram.sum())
    if paper < 130 or share < 0.4 or not 0.003 < ink_share < 0.4:
        return 0.0
    red, green, blue = shrunk[..., 0], shrunk[..., 1], shrunk[..., 2]
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    colorless = float((chroma < 48).mean())
    found = _ramp(paper, 130, 180) * _ramp(share, 0.4, 0.55) * _ramp(colorless, 0.75, 0.9)
    if not found:
        return 0.0
    ink = luma < paper - _PAPER
    return found * max(_lines(ink), _lines(ink.T))


def _lines(ink: NDArray[np.bool_]) -> float:
    """How much the rows of bool[H, W] alternate between none and broken ink, as lines of text do: the best half of the strips."""
    strips = np.array_split(ink, max(1, ink.shape[1] // 64), axis=1)
    scores = []
    for strip in strips:
        share = strip.mean(1)
        strokes = (strip[:, 1:] != strip[:, :-1]).sum(1)
        text = (share > 0.08) & (strokes >= 4 * strip.shape[1] / 64)
        empty = share < 0.02 + 0.25 * np.sort(share)[9 * len(share) // 10]
        starts = int((text[1:] & ~text[:-1]).sum())
        gaps = int((empty[1:] & ~empty[:-1]).sum())
        solid = float(((share > 0.05) & (strokes < 4)).mean()) / max(1e-6, float((share > 0.05).mean()))
        scores.append(_ramp(min(starts, gaps), 1, 5) * _ramp(1 - solid, 0.3, 0.7))
    return float(np.mean(sorted(scores)[len(scores) // 2 :]))


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, and straight between."""
    return float(min(1.0, max(0.0, (value - low) / (high - low))))
