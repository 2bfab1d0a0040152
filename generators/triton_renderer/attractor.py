"""The chaos game on the GPU: from maps to counts of points on a canvas, as `fractal.show` computes it on the CPU.

One program is one object, its 64 chains two warps. The chains run twice, once to find the bounding box and once to count,
which costs less than keeping the points. Objects with too little visible are counted again without a round trip to the host:
programs of finished objects return at once. Arguments named as fields of `Table` are those fields.
"""

import triton
import triton.language as tl

from .lanes import seed_lanes, xorshift32

_LANES = tl.constexpr(64)
_DISCARDED = tl.constexpr(31)  # steps before the one that makes the first row of points
_MARGIN = tl.constexpr(0.03125)
# Columns of Table.square.
_COLUMNS, _MAPS, _SIDE, _SWAP, _PATCH = (tl.constexpr(column) for column in (6, 0, 3, 4, 5))


@triton.jit
def _advance(bits, x, y, limits, maps, MOST: tl.constexpr):
    """One step of the chains. Of up to MOST maps (float32[6, 8]) it is the last whose limit a lane's random bits exceed."""
    bits = xorshift32(bits)
    k = (bits > limits[0]).to(tl.int32)
    for i in tl.static_range(1, MOST - 1):
        k += (bits > limits[i]).to(tl.int32)
    u = tl.load(maps + k) * x + tl.load(maps + 8 + k) * y + tl.load(maps + 16 + k)
    v = tl.load(maps + 24 + k) * x + tl.load(maps + 32 + k) * y + tl.load(maps + 40 + k)
    return bits, u, v


@triton.jit
def _fit(low, high, across):
    """Center and slope (float32) of an axis on which low … high takes `across` pixels (float64)."""
    center = 0.5 * (low + high)
    extent = tl.maximum(high - low, 1e-5 * (tl.abs(center) + 1.0))
    return center, (across / extent.to(tl.float64)).to(tl.float32)


@triton.jit
def count_points(
    chaos_key, first_cell, across, middle, maps, starts, limits, square, boxes, done, cells, points,
    MOST: tl.constexpr, FIND_BOX: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Add an object's points to its cells (int32), unless it is `done` (int32[O]).

    FIND_BOX: find the box of the points first, into boxes (float32[O, 4]: least x, y, greatest x, y), else take it from there.
    EVEN: all maps are equally likely.
    """
    number = tl.program_id(0)
    if tl.load(done + number) != 0:
        return
    square += number * _COLUMNS
    side = tl.load(square + _SIDE)
    maps += number * 48
    limits += number * 16 + 8 * EVEN
    limit = (
        tl.load(limits + 1), tl.load(limits + 2), tl.load(limits + 3), tl.load(limits + 4),
        tl.load(limits + 5), tl.load(limits + 6), tl.load(limits + 7),
    )  # fmt: skip
    lanes = tl.arange(0, _LANES)
    start = starts + number * 16 + lanes % tl.load(square + _MAPS)
    bits, x, y = seed_lanes(tl.load(chaos_key + number), lanes), tl.load(start), tl.load(start + 8)
    for _ in range(_DISCARDED):
        bits, x, y = _advance(bits, x, y, limit, maps, MOST)
    rows = (points + _LANES - 1) // _LANES

    boxes += number * 4
    if FIND_BOX:
        left = tl.full([_LANES], float("inf"), tl.float32)
        top, right, bottom = left, -left, -left
        b, u, v = bits, x, y
        for row in range(rows):
            b, u, v = _advance(b, u, v, limit, maps, MOST)
            counted = row * _LANES + lanes < points
            left, right = tl.where(counted & (u < left), u, left), tl.where(counted & (u > right), u, right)
            top, bottom = tl.where(counted & (v < top), v, top), tl.where(counted & (v > bottom), v, bottom)
        xmin, ymin, xmax, ymax = tl.min(left), tl.min(top), tl.max(right), tl.max(bottom)
        tl.store(boxes, xmin)
        tl.store(boxes + 1, ymin)
        tl.store(boxes + 2, xmax)
        tl.store(boxes + 3, ymax)
    else:
        xmin, ymin, xmax, ymax = tl.load(boxes), tl.load(boxes + 1), tl.load(boxes + 2), tl.load(boxes + 3)

    cx, ax = _fit(xmin, xmax, tl.load(across + 2 * number))
    cy, ay = _fit(ymin, ymax, tl.load(across + 2 * number + 1))
    bx, by = tl.load(middle + 2 * number), tl.load(middle + 2 * number + 1)
    swap = tl.load(square + _SWAP) != 0
    along_x, along_y = tl.where(swap, side, 1), tl.where(swap, 1, side)
    end = side.to(tl.float32)
    cells += tl.load(first_cell + number)
    for row in range(rows):
        bits, x, y = _advance(bits, x, y, limit, maps, MOST)
        u, v = (x - cx) * ax + bx, (y - cy) * ay + by
        inside = (u >= 0.0) & (u < end) & (v >= 0.0) & (v < end) & (row * _LANES + lanes < points)
        column, line = tl.where(inside, u, 0.0).to(tl.int32), tl.where(inside, v, 0.0).to(tl.int32)
        tl.atomic_add(cells + column * along_x + line * along_y, 1, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["attempt"])
def judge(first_cell, across, middle, square, boxes, done, cells, points, attempt, BLOCK: tl.constexpr):
    """Decide whether an object is `done`; if too little is visible, clear its cells and set up the next attempt.

    As in `raster.too_sparse`: the points and pixels that must be visible. Attempt 0 lets the box fill the square, attempts
    1 … 4 a quarter of the square around the fullest pixel; the last is to find a new box.
    """
    number = tl.program_id(0)
    if tl.load(done + number) != 0:
        return
    square += number * _COLUMNS
    side = tl.load(square + _SIDE)
    pixels = side * side
    cells += tl.load(first_cell + number)
    places = tl.arange(0, BLOCK)
    seen, lit = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
    most, at = tl.full([BLOCK], -1, tl.int32), tl.zeros([BLOCK], tl.int32)
    for first in range(0, pixels, BLOCK):
        count = tl.load(cells + first + places, mask=first + places < pixels, other=0)
        seen += count
        lit += (count > 0).to(tl.int32)
        at = tl.where(count > most, first + places, at)
        most = tl.maximum(count, most)
    enough = tl.minimum(pixels // 64, points // 8)
    if (4 * tl.sum(seen) >= points) & (tl.sum(lit) >= enough):
        tl.store(done + number, 1)
        return
    for first in range(0, pixels, BLOCK):
        tl.store(cells + first + places, 0, mask=first + places < pixels)

    across += 2 * number
    middle += 2 * number
    boxes += 4 * number
    half = 0.5 * side.to(tl.float32)
    if attempt == 0:
        filled = side.to(tl.float64) - _MARGIN
        tl.store(across, filled)
        tl.store(across + 1, filled)
        tl.store(middle, half)
        tl.store(middle + 1, half)
        tl.store(square + _SWAP, 0)
    else:
        fullest = tl.min(tl.where(most == tl.max(most), at, pixels))
        cx, ax = _fit(tl.load(boxes), tl.load(boxes + 2), tl.load(across))
        cy, ay = _fit(tl.load(boxes + 1), tl.load(boxes + 3), tl.load(across + 1))
        column, line = (fullest % side).to(tl.float64), (fullest // side).to(tl.float64)
        x = cx.to(tl.float64) + (column + 0.5 - half.to(tl.float64)) / ax.to(tl.float64)
        y = cy.to(tl.float64) + (line + 0.5 - half.to(tl.float64)) / ay.to(tl.float64)
        eighth = 0.125 * side.to(tl.float32)
        across_x, across_y = tl.div_rn(eighth, ax).to(tl.float64), tl.div_rn(eighth, ay).to(tl.float64)
        tl.store(boxes, (x - across_x).to(tl.float32))
        tl.store(boxes + 1, (y - across_y).to(tl.float32))
        tl.store(boxes + 2, (x + across_x).to(tl.float32))
        tl.store(boxes + 3, (y + across_y).to(tl.float32))


@triton.jit
def stamp_patches(first_cell, square, cells, stamped, BLOCK: tl.constexpr):
    """Sum an object's counts over its patch, a 3 × 3 mask, into `stamped` (int32), laid out as `cells`."""
    number = tl.program_id(0)
    square += number * _COLUMNS
    side, patch = tl.load(square + _SIDE), tl.load(square + _PATCH)
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < side * side
    line, column = cell // side, cell % side
    first = tl.load(first_cell + number)
    total = tl.zeros([BLOCK], tl.int32)
    for tap in tl.static_range(9):
        y, x = line - (tap // 3 - 1), column - (tap % 3 - 1)
        inside = valid & (y >= 0) & (y < side) & (x >= 0) & (x < side)
        total += ((patch >> tap) & 1) * tl.load(cells + first + y * side + x, mask=inside, other=0)
    tl.store(stamped + first + cell, total, mask=valid)


@triton.jit
def find_brightest(first_cell, square, cells, scales, BINARY: tl.constexpr, BLOCK: tl.constexpr):
    """255 by an object's greatest count, into scales (float32[O]); -1 for one that is BINARY and has a dark pixel."""
    number = tl.program_id(0)
    side = tl.load(square + number * _COLUMNS + _SIDE)
    cells += tl.load(first_cell + number)
    places = tl.arange(0, BLOCK)
    most = tl.full([BLOCK], 1, tl.int32)
    dark = tl.zeros([BLOCK], tl.int32)
    for first in range(0, side * side, BLOCK):
        inside = first + places < side * side
        counts = tl.load(cells + first + places, mask=inside, other=0)
        most = tl.maximum(most, counts)
        dark = tl.maximum(dark, (inside & (counts == 0)).to(tl.int32))
    scale = tl.div_rn(255.0, tl.max(most).to(tl.float32))
    if BINARY:
        scale = tl.where(tl.max(dark) > 0, -1.0, scale)
    tl.store(scales + number, scale)
