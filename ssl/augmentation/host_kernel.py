"""One compiled call that makes a slice of the views of a batch; a view stays in the cache from pixels to normalized values.

A view is processed in blocks of rows that fit the L1 cache, in one pass, or in two if contrast needs the mean of the operations
before it. Operations that do not apply to a view are skipped.

Lower bound of the time of a SimCLR view, float32, on one core with vectors of 8 at 2.6 GHz, two operations per cycle:

| side | read | written | operations | bound | measured |
|---|---|---|---|---|---|
| 32 px | ≤ 3 KiB | 12 KiB | 0.1 million | 2.4 + 0.4 µs | 4.7 µs, and less than 0.5 µs for the crop boxes in numpy |
| 224 px | ≤ 147 KiB | 588 KiB | 6.3 million | 150 + 21 µs | 265 µs |

Operations per pixel: 14 to resize across and 6 down, 63 for jitter (45 of them hue, all with probability 0.8), 40 for the blur
(a mean radius of 6.3 at 224 px, 1 at 32 px, with probability 0.5) and 3 to normalize; bytes are counted at the 28 GB/s at which
this core fills memory. The difference to the bound: indexed reads of pixels, the blur, which is limited by the L1 cache instead
of arithmetic, and at 32 px the ends of short rows.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wildfern.generators.compiling import kernel
from wildfern.ssl.augmentation.host_blur import blur_across, blur_down, gaussian_taps, pad
from wildfern.ssl.augmentation.host_color import CONTRAST, jitter, scale_and_shift, solarize, sum_of_luma, to_gray
from wildfern.ssl.augmentation.host_loops import host_loop
from wildfern.ssl.augmentation.host_resize import clip, filter_taps, max_taps, resize_across, resize_down

_BLOCK = 1024  # pixels processed together: 12 KiB of planes, within the L1 cache
_1, _255TH = np.float32(1), np.float32(1 / 255)


class ViewNumbers(NamedTuple):
    """The parameters of each view v of each image i; every array starts with [V, n]."""

    boxes: NDArray[np.int64]  # [V, n, 4]: top, left, height, width
    flip: NDArray[np.bool_]
    cubic: bool  # all crops are resized by a cubic filter instead of a triangle
    amounts: NDArray[np.float32]  # [V, n, 4]: brightness, contrast, saturation, hue
    order: NDArray[np.int64]  # [V, n, 4]: the order of these four
    gray: NDArray[np.bool_]
    sigma: NDArray[np.float32]  # 0: no blur
    threshold: NDArray[np.float32]  # above 1: not solarized


class _Workspace(NamedTuple):
    """Buffers of a slice, reused by its views; S pixels per side, T taps at most, R rows per block."""

    planes: NDArray[np.float32]  # [3, S * S]
    first_x: NDArray[np.int32]  # [S]
    first_y: NDArray[np.int32]
    weights_x: NDArray[np.float32]  # [T, S]
    weights_y: NDArray[np.float32]
    sums: NDArray[np.float32]  # [S]
    packed: NDArray[np.uint32]  # [width + 1]
    resized: NDArray[np.float32]  # [T, 3 * S]: the rows resized last
    bell: NDArray[np.float32]  # weights of the blur
    padded: NDArray[np.float32]  # [3 * (S + 2 * radius)]: a row with its reflected borders
    blurred: NDArray[np.float32]  # [2 * radius + 1, 3 * (S + 2 * radius)]: the rows blurred across last
    line: NDArray[np.float32]  # [3 * (S + 2 * radius)]: a row blurred both ways
    rounded: NDArray[np.float32]  # [R * 3 * S]: values before rounding to bfloat16


@njit
def _space(size, height, width, cubic):
    taps = max_taps(max(height, width), size, cubic)
    radius = size // 20 + 2
    row = 3 * (size + 2 * radius)
    return _Workspace(
        np.empty((3, size * size), np.float32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty((taps, size), np.float32),
        np.empty((taps, size), np.float32),
        np.empty(size, np.float32),
        np.empty(width + 1, np.uint32),
        np.empty((taps, 3 * size), np.float32),
        np.empty(radius + 2, np.float32),
        np.empty(row, np.float32),
        np.zeros((2 * radius + 1, row), np.float32),
        np.empty(row, np.float32),
        np.empty(max(_BLOCK, size) * 3, np.float32),
    )


@host_loop
def _crop_rows(image, box, cubic, begin, end, taps_x, taps_y, seen, space, red, green, blue):
    """Rows begin … end - 1 of the resized crop. `seen`: rows of the box that are resized across; returns their new number."""
    size = space.first_x.size
    top, left, height, width = box[0], box[1], box[2], box[3]
    ring = space.resized[:taps_y]
    for y in range(begin, end):
        first = space.first_y[y]
        while seen < first + taps_y:
            into = ring[seen % taps_y]
            if seen < height:
                line = image[top + seen, 3 * left : 3 * (left + width)]
                resize_across(line, taps_x, space.first_x, space.weights_x, space.packed, into)
            else:  # outside of the box, with weight 0
                for x in range(np.uint64(into.size)):
                    into[x] = 0
            seen += 1
        at, after = (y - begin) * size, (y - begin + 1) * size
        resize_down(ring, taps_y, first, space.weights_y[:, y], red[at:after], green[at:after], blue[at:after])
    if cubic:
        clip(red, _1)
        clip(green, _1)
        clip(blue, _1)
    return seen


@host_loop
def _put(red, green, blue, scale, shift, rounded, wide, narrow):
    """Normalize and interleave the channels: into wide (float32[3 * M]) or, if that is empty, narrow (bits of bfloat16)."""
    if wide.size:
        _normalize(red, green, blue, scale, shift, wide)
    else:
        _normalize(red, green, blue, scale, shift, rounded)
        _round(rounded.view(np.uint32), narrow)


@host_loop
def _normalize(red, green, blue, scale, shift, out):
    a, b, c = scale[0], scale[1], scale[2]
    d, e, f = shift[0], shift[1], shift[2]
    for i in range(np.uint64(red.size)):
        at = np.uint64(3) * i
        out[at] = a * red[i] + d
        out[at + np.uint64(1)] = b * green[i] + e
        out[at + np.uint64(2)] = c * blue[i] + f


@host_loop
def _round(bits, out):
    """float32 to the nearest bfloat16, ties to even."""
    for i in range(np.uint64(out.size)):
        half = np.uint32(0x7FFF) + (bits[i] >> np.uint32(16) & np.uint32(1))
        out[i] = np.uint16((bits[i] + half) >> np.uint32(16))


@host_loop
def _blur_rows(begin, end, done, radius, threshold, scale, shift, space, wide, narrow):
    """Blur rows begin … end - 1 across and finish the rows that are complete. `done`: finished rows; returns their new number."""
    size = space.first_x.size
    stride, window = size + 2 * radius, 2 * radius + 1
    red, green, blue = space.line[:size], space.line[stride : stride + size], space.line[2 * stride : 2 * stride + size]
    used = 2 * stride + size
    for y in range(begin, end):
        for c in range(3):
            row = space.planes[c, y * size : (y + 1) * size]
            pad(row, radius, space.padded[c * stride : (c + 1) * stride])
        blur_across(space.padded, radius, space.bell, space.blurred[y % window, :used])
        while done < size and (done + radius <= y or y == size - 1):
            blur_down(space.blurred, done, size, radius, space.bell, space.line[:used])
            if threshold <= _1:
                solarize(space.line[:used], threshold)
            at, after = 3 * done * size, 3 * (done + 1) * size
            _put(red, green, blue, scale, shift, space.rounded, wide[at:after], narrow[at:after])
            done += 1
    return done


@host_loop
def _render_view(image, numbers, v, i, scale, shift, space, wide, narrow):
    """Make view v of image i (uint8[H, 3 * W]) into wide (float32[3 * S * S]) or, if that is empty, into narrow (uint16)."""
    size = space.first_x.size
    amounts, order, threshold = numbers.amounts[v, i], numbers.order[v, i], numbers.threshold[v, i]
    box = numbers.boxes[v, i]
    taps_y = filter_taps(box[2], False, numbers.cubic, _255TH, space.first_y, space.weights_y, space.sums)
    taps_x = filter_taps(box[3], numbers.flip[v, i], numbers.cubic, _1, space.first_x, space.weights_x, space.sums)
    radius = gaussian_taps(numbers.sigma[v, i], size, space.bell)
    # Contrast needs the mean of the image before it: only then there are two passes.
    factor, place = amounts[CONTRAST], 4
    if factor != _1:
        place = 0
        while order[place] != CONTRAST:
            place += 1
    rows = max(1, _BLOCK // size)
    luma, seen, done = 0.0, 0, 0
    for again in range(2 if place < 4 else 1):
        for begin in range(0, size, rows):
            end = min(begin + rows, size)
            at, after = begin * size, end * size
            red, green, blue = space.planes[0, at:after], space.planes[1, at:after], space.planes[2, at:after]
            if again:
                scale_and_shift(red, green, blue, factor, (_1 - factor) * np.float32(luma / (size * size)))
                jitter(red, green, blue, order, place + 1, 4, amounts)
            else:
                seen = _crop_rows(image, box, numbers.cubic, begin, end, taps_x, taps_y, seen, space, red, green, blue)
                jitter(red, green, blue, order, 0, place, amounts)
                if place < 4:
                    luma += sum_of_luma(red, green, blue)
                    continue
            if numbers.gray[v, i]:
                to_gray(red, green, blue)
            if radius:
                done = _blur_rows(begin, end, done, radius, threshold, scale, shift, space, wide, narrow)
                continue
            if threshold <= _1:
                solarize(red, threshold)
                solarize(green, threshold)
                solarize(blue, threshold)
            _put(red, green, blue, scale, shift, space.rounded, wide[3 * at : 3 * after], narrow[3 * at : 3 * after])


@kernel("views")
def render_slice(sources: int):
    """The kernel that makes a slice of the views of a batch."""

    def render_slice(
        pixels, paired_images, shows_paired, stride, numbers, scale, shift, size, begin, end, wide, narrow
    ):
        """Make views begin … end - 1 of V * n, counted image by image, into wide (float32[V, n, 3 * size * size]).

        If that is empty ([V, n, 0]), into narrow (uint16, bits of bfloat16). View v of image i shows pixels[stride * v + i]
        (uint8[…, H, 3 * W]) or, if shows_paired[v], that of `paired_images`. Values x in [0, 1]
        become scale[c] * x + shift[c] (float32[3]).
        """
        _ = sources
        views = numbers.flip.shape[0]
        space = _space(size, pixels.shape[1], pixels.shape[2] // 3, numbers.cubic)
        for item in range(begin, end):
            v, i = item % views, item // views
            source = paired_images if shows_paired[v] else pixels
            _render_view(source[stride * v + i], numbers, v, i, scale, shift, space, wide[v, i], narrow[v, i])

    return render_slice


def render_example() -> None:
    """Render one small view, with arguments of the types of every call: compiles the kernel or loads it from the cache."""
    view, size = (1, 1), 4
    pixels, whole, no = np.zeros((1, size, 3 * size), np.uint8), np.array([0, 0, size, size]), np.zeros(view, np.bool_)
    order, nothing = np.arange(4).reshape(*view, 4), np.zeros(view, np.float32)
    numbers = ViewNumbers(
        whole.reshape(*view, 4), no, False, np.ones((*view, 4), np.float32), order, no, nothing, nothing + 2
    )
    wide, narrow = np.empty((*view, 3 * size * size), np.float32), np.empty((*view, 0), np.uint16)
    scale, shift = np.ones(3, np.float32), np.zeros(3, np.float32)
    render_slice(pixels, pixels, np.zeros(1, np.bool_), 0, numbers, scale, shift, size, 0, 1, wide, narrow)
