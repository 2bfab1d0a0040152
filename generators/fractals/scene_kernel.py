"""One compiled call that renders a slice of scenes: several new fractals on one background."""

import numpy as np
from numba import njit

from ..blur import blur_space, blur_weight, row_painter
from ..color import background_table, fractal_table
from ..compiling import kernel
from ..counter_rng import fold64, uniform64
from ..diamond_square import byte_field, field_space
from .chaos_game import BY_DETERMINANT
from .fractal import (
    BACKGROUND,
    BLUR,
    CHAOS,
    COLOR,
    PLACEMENT,
    RENDER,
    SAMPLE_KEYS,
    draw_by_singular_values,
    play_system,
    show,
    workspace,
)
from .raster import composite_row, palette_entries

#: Parts of a sample's key: what is in the scene, and the key of each image; and of an image's: the key of each object.
CONTENT, IMAGES, OBJECTS = np.uint64(7), np.uint64(16), np.uint64(32)
SMALLEST = 4  # pixels a side of an object


@njit
def draw_content(sample_key, first_class, classes, fewest, most, labels):
    """Classes of a scene's objects into labels (int64[most], -1 after the last); returns their number.

    The number is uniform on fewest..most; the class of the first object is `first_class` unless that is negative, all others
    are uniform, so one class may come twice.
    """
    content_key = fold64(sample_key, CONTENT)
    count = fewest + int(uniform64(content_key, np.uint64(0)) * (most - fewest + 1))
    for k in range(most):
        label = int(uniform64(content_key, np.uint64(1 + k)) * classes)
        labels[k] = label if k < count else -1
    if first_class >= 0:
        labels[0] = first_class
    return count


@kernel("contents of scenes")
def draw_contents(sources: int):
    """Draw what is in each of some scenes."""

    def draw_slice(stream_key, indices, classes, by_index, fewest, most, content):
        """`draw_content` for samples `indices` (int64[N]) into content (int64[N, most])."""
        _ = sources
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            first_class = indices[i] % classes if by_index else -1
            draw_content(sample_key, first_class, classes, fewest, most, content[i])

    return draw_slice


@njit
def draw_object_placement(placement_key, smallest, largest, size, placement):
    """An object's square on a canvas of `size` pixels, and in `placement` (float64[6]) how the fractal lies in it.

    The side is U(smallest, largest) canvases, at least SMALLEST pixels. A square not larger than the canvas lies anywhere
    within it; of a larger one the canvas shows any part. Returns (left, top, side, swap) of what is visible, in pixels.
    """
    scale = smallest + (largest - smallest) * uniform64(placement_key, np.uint64(0))
    side = max(int(scale * size + 0.5), SMALLEST)
    visible = min(side, size)
    u, v = uniform64(placement_key, np.uint64(1)), uniform64(placement_key, np.uint64(2))
    placement[0] = placement[1] = side / visible
    placement[2], placement[3] = (u - 0.5) * (side - visible) / visible, (v - 0.5) * (side - visible) / visible
    placement[4] = -1.0 if uniform64(placement_key, np.uint64(3)) < 0.5 else 1.0
    placement[5] = -1.0 if uniform64(placement_key, np.uint64(4)) < 0.5 else 1.0
    swap = uniform64(placement_key, np.uint64(5)) < 0.5
    return int(u * (size - visible + 1)), int(v * (size - visible + 1)), visible, swap


@njit
def paste(entries, side, palette, left, top, canvas):
    """Write the palette's color where a fractal is lit, entries (uint16[side, side]) ≥ 256, into canvas (uint8[S, 3 * S])."""
    red, green, blue = palette[0], palette[1], palette[2]
    for row in range(side):
        line, out = entries[row], canvas[top + row, 3 * left : 3 * (left + side)]
        at = np.uint64(0)
        for j in range(np.uint64(side)):
            entry = np.uint64(line[j])
            if entry >= np.uint64(256):
                out[at] = red[entry]
                out[at + np.uint64(1)] = green[entry]
                out[at + np.uint64(2)] = blue[entry]
            at += np.uint64(3)


@njit
def _copy_row(canvas, row, line):
    line[: canvas.shape[1]] = canvas[row]


_paint = row_painter(_copy_row)


@kernel("scenes of fractals")
def render_scenes(sources: int):
    """Render samples of one or more images with the same fractals in each."""

    def render_slice(
        stream_key, indices, classes, by_index, fewest, most, smallest, largest, settings, labels, images, paired_images
    ):
        """Render sample indices[i] into images[i] and, unless it is empty, paired_images[i] (uint8[N, S, 3 * S] each).

        Its classes go into labels[i] (int64[N, most]), -1 after the last. `by_index`: the first is index % classes.
        """
        _ = sources
        size, levels = settings.size, settings.levels
        work, clouds, soft = workspace(settings.rows, size * size), field_space(size, levels), blur_space(size)
        palette, canvas = np.zeros((3, 512), np.uint8), np.empty((size, 3 * size), np.uint8)
        entries, nothing = np.empty(size * size, np.uint16), np.zeros((size, size), np.uint8)
        row_entries = np.empty(size, np.uint16)
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            first_class = indices[i] % classes if by_index else -1
            count = draw_content(sample_key, first_class, classes, fewest, most, labels[i])
            for which in range(2 if paired_images.shape[0] else 1):
                image = paired_images[i] if which else images[i]
                image_key = fold64(sample_key, IMAGES + np.uint64(which))
                color_key = fold64(image_key, COLOR)
                if settings.background:
                    background_table(color_key, settings.color, palette[:, :256])
                    byte_field(fold64(image_key, BACKGROUND), size, levels, clouds)
                for row in range(size):
                    for column in range(size):
                        row_entries[column] = clouds.field[row, column]
                    composite_row(row_entries, palette, canvas[row])
                for k in range(count):
                    object_key = fold64(image_key, OBJECTS + np.uint64(k))
                    n = draw_by_singular_values(stream_key, labels[i, k], object_key, settings, work)
                    chaos_key = fold64(object_key, CHAOS)
                    play_system(n, BY_DETERMINANT, chaos_key, settings.rows, work)
                    left, top, side, swap = draw_object_placement(
                        fold64(object_key, PLACEMENT), smallest, largest, size, work.placement
                    )
                    counts = work.counts[: side * side + 1]
                    show(n, swap, chaos_key, settings.points, settings.rows, side, counts, work)
                    fractal_table(fold64(object_key, COLOR), settings.color, palette[:, 256:])
                    lit = entries[: side * side].reshape(side, side)
                    render_key = fold64(object_key, RENDER)
                    palette_entries(settings.render, render_key, side, counts, work.stamped, nothing, lit)
                    paste(lit, side, palette, left, top, canvas)
                outer = blur_weight(fold64(image_key, BLUR)) if settings.blur else 0
                _paint(canvas, outer, soft, image)

    return render_slice
