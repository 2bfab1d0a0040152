"""Diamond-square fields on the GPU: the bytes of `diamond_square.byte_field`.

The CPU version advances a column's random state from row to row. Here one program per image stores all random words first; then
every level is one launch in which each cell is independent: it computes the three centers that it needs itself.
"""

import triton
import triton.language as tl

from .lanes import seed_lanes, xorshift32


@triton.jit(do_not_specialize=["levels", "used"])
def draw_words(columns_key, words, words_each, levels, used, COLUMNS: tl.constexpr):
    """The random words (uint32[P, words_each]) of fields: for each level of m columns 1 + m rows, at the last 1 + `used`.

    Row i + 1 is for row i of the cells; row 0 for the centers above the first.
    """
    image = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    state = seed_lanes(tl.load(columns_key + image), columns)
    words += image * words_each
    for level in range(levels):
        m = 1 << level
        rows = tl.where(level == levels - 1, used, m)
        for _ in range(1 + rows):
            state = tl.where(columns < m, xorshift32(state), state)
            tl.store(words + columns, state, mask=columns < m)
            words += m


@triton.jit
def _noise(word, shift: tl.constexpr):
    return ((word >> shift) & 1023).to(tl.float32) - 511.5


@triton.jit(do_not_specialize=["m", "used", "first_word", "level"])
def refine(
    grid, words, steps, extremes, finer, m, used, first_word, words_each, level, levels,
    LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The first used × used cells of grids float32[P, m, m], each split in four: `finer` is float32[P, 2m, 2m].

    At the LAST level it is uint8[P, 2 used, 2 used], 0 … 255 from the least to the greatest of `extremes` (float32[P, 2]).
    """
    image = tl.program_id(0).to(tl.int64)
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < used * used
    i, j = cell // used, cell % used
    above, below, left, right = (i - 1) & (m - 1), (i + 1) & (m - 1), (j - 1) & (m - 1), (j + 1) & (m - 1)
    grid += image * m * m
    words += image * words_each + first_word
    step = tl.load(steps + image * levels + level)

    corner = tl.load(grid + i * m + j, mask=valid)
    corner_right = tl.load(grid + i * m + right, mask=valid)
    corner_below = tl.load(grid + below * m + j, mask=valid)
    word = tl.load(words + (i + 1) * m + j, mask=valid)

    total = (corner + corner_right) + (corner_below + tl.load(grid + below * m + right, mask=valid))
    center = total * 0.25 + _noise(word, 0) * step

    total = (tl.load(grid + above * m + j, mask=valid) + tl.load(grid + above * m + right, mask=valid)) + (
        corner + corner_right
    )
    center_above = total * 0.25 + _noise(tl.load(words + i * m + j, mask=valid), 0) * step

    total = (tl.load(grid + i * m + left, mask=valid) + corner) + (
        tl.load(grid + below * m + left, mask=valid) + corner_below
    )
    center_left = total * 0.25 + _noise(tl.load(words + (i + 1) * m + left, mask=valid), 0) * step

    edge_right = ((corner + corner_right) + (center_above + center)) * 0.25 + _noise(word, 10) * step
    edge_below = ((corner + corner_below) + (center_left + center)) * 0.25 + _noise(word, 20) * step
    width = 2 * used
    finer += image * width * width + 2 * i * width + 2 * j
    if LAST:
        low, scale = tl.load(extremes + 2 * image), tl.load(extremes + 2 * image + 1)
        tl.store(finer, _byte(corner, low, scale), mask=valid)
        tl.store(finer + 1, _byte(edge_right, low, scale), mask=valid)
        tl.store(finer + width, _byte(edge_below, low, scale), mask=valid)
        tl.store(finer + width + 1, _byte(center, low, scale), mask=valid)
    else:
        tl.store(finer, corner, mask=valid)
        tl.store(finer + 1, edge_right, mask=valid)
        tl.store(finer + width, edge_below, mask=valid)
        tl.store(finer + width + 1, center, mask=valid)


@triton.jit
def _byte(value, low, scale):
    value = (value - low) * scale
    return tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.int32).to(tl.uint8)


@triton.jit(do_not_specialize=["cells"])
def find_extremes(grid, cells, extremes, BLOCK: tl.constexpr):
    """The least value of grids float32[P, cells], and what stretches the others to 255.99: float32[P, 2]."""
    image = tl.program_id(0).to(tl.int64)
    grid += image * cells
    places = tl.arange(0, BLOCK)
    low = tl.full([BLOCK], float("inf"), tl.float32)
    high = -low
    for first in range(0, cells, BLOCK):
        inside = first + places < cells
        low = tl.minimum(low, tl.load(grid + first + places, mask=inside, other=float("inf")))
        high = tl.maximum(high, tl.load(grid + first + places, mask=inside, other=float("-inf")))
    least, greatest = tl.min(low), tl.max(high)
    extent = greatest - least
    scale = tl.where(extent > 0.0, tl.div_rn(255.99, tl.where(extent > 0.0, extent, 1.0)), 0.0)
    tl.store(extremes + 2 * image, least)
    tl.store(extremes + 2 * image + 1, scale)
