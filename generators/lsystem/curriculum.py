"""A curriculum of widths and contrasts: from thick, clear branches to all."""

from numba import njit

from .layout import CONTRAST, WIDTH


@njit
def progress(index, curriculum):
    """How far sample `index` is on the way from easy to hard, 0 … 1; 1 without a curriculum of samples, negative indices 0."""
    return min(max(index / curriculum, 0.0), 1.0) if curriculum > 0 else 1.0


@njit
def ease(spans, t, eased):
    """Copy spans (float64[12, 2]), with those of width and contrast shortened to [low + (1 - t) (high - low) / 2, high]."""
    eased[:] = spans
    for row in (WIDTH, CONTRAST):
        eased[row, 0] += 0.5 * (1.0 - t) * (spans[row, 1] - spans[row, 0])
