"""From counts and fields to images on the GPU: the colors of `raster.composite_row` and `scene_kernel.paste`, and the blur."""

import triton
import triton.language as tl

# Columns of Table.square and Table.canvas.
_SQUARE, _LEFT, _TOP, _SIDE = (tl.constexpr(column) for column in (6, 1, 2, 3))
_CANVAS, _FIRST, _OBJECTS, _OUTER, _ROW = (tl.constexpr(column) for column in (4, 0, 1, 2, 3))


@triton.jit
def paint(
    first_cell, square, canvas, colors, backdrop, field, cells, scales, images, size,
    BACKGROUND: tl.constexpr, BINARY: tl.constexpr, FINISHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """An image's objects, in order, over its field (uint8[P, M, M], M even and not below `size`) or black.

    images (uint8[…, S, S, 3]) are in the order of the table, or, if FINISHED, in the order of the result.
    """
    image = tl.program_id(0)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < size * size
    line, column = pixel // size, pixel % size
    canvas += image * _CANVAS
    if BACKGROUND:
        width = 2 * ((size + 1) // 2)
        value = tl.load(field + image.to(tl.int64) * width * width + line * width + column, mask=valid, other=0)
        entry = backdrop + image * 768 + value.to(tl.int32)
        red, green, blue = tl.load(entry), tl.load(entry + 256), tl.load(entry + 512)
    else:
        red = tl.zeros([BLOCK], tl.uint8)
        green, blue = red, red
    first = tl.load(canvas + _FIRST)
    for number in range(first, first + tl.load(canvas + _OBJECTS)):
        place = square + number * _SQUARE
        side = tl.load(place + _SIDE)
        x, y = column - tl.load(place + _LEFT), line - tl.load(place + _TOP)
        inside = valid & (x >= 0) & (x < side) & (y >= 0) & (y < side)
        count = tl.load(cells + tl.load(first_cell + number) + y * side + x, mask=inside, other=0)
        scale = tl.load(scales + number)
        intensity = count.to(tl.float32) * scale
        if BINARY:
            intensity = tl.where(scale < 0, 255.0 * tl.minimum(count, 1).to(tl.float32), intensity)
        entry, lit = colors + number * 768 + intensity.to(tl.int32), count > 0
        red = tl.load(entry, mask=lit, other=red)
        green = tl.load(entry + 256, mask=lit, other=green)
        blue = tl.load(entry + 512, mask=lit, other=blue)
    row = image
    if FINISHED:
        row = tl.load(canvas + _ROW)
    images += row.to(tl.int64) * size * size * 3 + 3 * pixel
    tl.store(images, red, mask=valid)
    tl.store(images + 1, green, mask=valid)
    tl.store(images + 2, blue, mask=valid)


@triton.jit
def _across(line, place, width, side, middle):
    """One row of bytes blurred along itself, by 3 bytes a pixel; the border is repeated."""
    inside = place < width
    before = tl.load(line + tl.where(place < 3, place, place - 3), mask=inside, other=0).to(tl.int32)
    here = tl.load(line + place, mask=inside, other=0).to(tl.int32)
    after = tl.load(line + tl.where(place + 3 < width, place + 3, place), mask=inside, other=0).to(tl.int32)
    return (here * middle + (before + after) * side + 128) >> 8


@triton.jit
def blur(canvas, sharp, images, size, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Blur ROWS rows of an image of `sharp` (uint8[P, S, S, 3]) into its place in `images`. WIDTH: power of 2 ≥ 3 S."""
    image = tl.program_id(0)
    canvas += image * _CANVAS
    side = tl.load(canvas + _OUTER)
    middle = 256 - 2 * side
    width = 3 * size
    place = tl.arange(0, WIDTH)
    sharp += image.to(tl.int64) * size * width
    images += tl.load(canvas + _ROW).to(tl.int64) * size * width
    first = tl.program_id(1) * ROWS
    above = _across(sharp + tl.maximum(first - 1, 0) * width, place, width, side, middle)
    here = _across(sharp + first * width, place, width, side, middle)
    for line in range(first, tl.minimum(first + ROWS, size)):
        below = _across(sharp + tl.minimum(line + 1, size - 1) * width, place, width, side, middle)
        mixed = (here * middle + (above + below) * side + 128) >> 8
        tl.store(images + line * width + place, mixed.to(tl.uint8), mask=place < width)
        above = here
        here = below
