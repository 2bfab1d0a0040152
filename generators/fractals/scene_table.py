"""All random numbers of images of fractals in one table, for a renderer on another device.

They are the same draws as in the CPU kernels, by the same functions. The renderer needs no keys except those of the random
states, and only additions, multiplications and divisions.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..blur import blur_weight
from ..color import background_table, fractal_table
from ..compiling import kernel
from ..counter_rng import fold64
from ..diamond_square import amplitude_ratio, lanes_key
from .chaos_game import BY_DETERMINANT, EVENLY, choose_limits, fixed_point, round_maps
from .fractal import (
    BACKGROUND,
    BLUR,
    CHAOS,
    COLOR,
    PLACEMENT,
    RENDER,
    SAMPLE_KEYS,
    draw_by_singular_values,
    workspace,
)
from .raster import draw_placement, fill_canvas, middle, patch_mask, pixels_across
from .scene_kernel import IMAGES, OBJECTS, draw_object_placement
from .settings import Settings

_ALIGNMENT = 16  # bytes


class Scene(NamedTuple):
    """Parameters shared by all samples of a stream: `images` per sample, of fractals in squares of U(smallest, largest)
    canvases; or, if `alone`, of one fractal whose square is the canvas.
    """

    stream_key: np.uint64
    alone: bool
    images: int
    smallest: float
    largest: float
    settings: Settings


class Table(NamedTuple):
    """One row for each of O objects, which are fractals, or for each of P images."""

    #: Object: its nonzero lane states come from this key. uint64[O]
    chaos_key: NDArray[np.uint64]
    #: Image: the random states of its field's columns come from this key. uint64[P]
    columns_key: NDArray[np.uint64]
    #: Object: where its side × side counts begin in those of all objects. int64[O]
    first_cell: NDArray[np.int64]
    #: Object: pixels that the extent of the attractor takes in x and y, negative where flipped. float64[O, 2]
    across: NDArray[np.float64]
    #: Object: the pixel where the middle of the attractor lies. float32[O, 2]
    middle: NDArray[np.float32]
    #: Object: rows of [A | b], each of up to 8 maps. float32[O, 6, 8]
    maps: NDArray[np.float32]
    #: Object: x's, then y's of the fixed points of the maps. float32[O, 2, 8]
    starts: NDArray[np.float32]
    #: Object: limits of the choice of maps by determinants, then of an even choice. uint32[O, 2, 8]
    limits: NDArray[np.uint32]
    #: Object: number of maps; left, top and side of its square in pixels; whether axes are swapped; mask of its patch.
    #: int32[O, 6]
    square: NDArray[np.int32]
    #: Image: noise of each level of the field. float32[P, levels]
    steps: NDArray[np.float32]
    #: Image: its first object; its number of objects; outer weight of the blur in 1/256; its row in the result. int32[P, 4]
    canvas: NDArray[np.int32]
    #: Object: its RGB for intensities 0 … 255. uint8[O, 3, 256]
    colors: NDArray[np.uint8]
    #: Image: RGB of its field's values 0 … 255, black without a background. uint8[P, 3, 256]
    backdrop: NDArray[np.uint8]


def table_layout(objects: int, images: int, levels: int) -> tuple[dict[str, tuple[int, str, tuple[int, ...]]], int]:
    """Byte layout of a `Table`: (offset, type, shape) of each array, and the total number of bytes."""
    rows = {
        "chaos_key": ("uint64", (objects,)),
        "columns_key": ("uint64", (images,)),
        "first_cell": ("int64", (objects,)),
        "across": ("float64", (objects, 2)),
        "middle": ("float32", (objects, 2)),
        "maps": ("float32", (objects, 6, 8)),
        "starts": ("float32", (objects, 2, 8)),
        "limits": ("uint32", (objects, 2, 8)),
        "square": ("int32", (objects, 6)),
        "steps": ("float32", (images, levels)),
        "canvas": ("int32", (images, 4)),
        "colors": ("uint8", (objects, 3, 256)),
        "backdrop": ("uint8", (images, 3, 256)),
    }
    layout, first = {}, 0
    for name, (kind, shape) in rows.items():
        layout[name] = first, kind, shape
        length = np.dtype(kind).itemsize * int(np.prod(shape))
        first += -(-length // _ALIGNMENT) * _ALIGNMENT
    return layout, first


def table_in(memory: NDArray[np.uint8], layout: dict[str, tuple[int, str, tuple[int, ...]]]) -> Table:
    """A `Table` whose arrays are views of these bytes."""
    arrays = {}
    for name, (first, kind, shape) in layout.items():
        length = np.dtype(kind).itemsize * int(np.prod(shape))
        arrays[name] = memory[first : first + length].view(kind).reshape(shape)
    return Table(**arrays)


@njit
def _draw_object(scene, object_key, label, o, work, table):
    """Row o of the table: a fractal of class `label`."""
    settings, size = scene.settings, scene.settings.size
    n = draw_by_singular_values(scene.stream_key, label, object_key, settings, work)
    table.chaos_key[o] = fold64(object_key, CHAOS)
    choose_limits(work.system, n, BY_DETERMINANT, table.limits[o, 0])
    choose_limits(work.system, n, EVENLY, table.limits[o, 1])
    round_maps(work.system, n, table.maps[o])
    for i in range(n):
        table.starts[o, 0, i], table.starts[o, 1, i] = fixed_point(work.system, i)
    placement_key = fold64(object_key, PLACEMENT)
    left, top, side, swap = 0, 0, size, False
    if not scene.alone:
        left, top, side, swap = draw_object_placement(
            placement_key, scene.smallest, scene.largest, size, work.placement
        )
    elif settings.move:
        swap = draw_placement(placement_key, work.placement)
    else:
        fill_canvas(work.placement)
    for axis in range(2):
        table.across[o, axis] = pixels_across(work.placement, axis, side)
        table.middle[o, axis] = middle(work.placement, axis, side)
    square = table.square[o]
    square[0], square[1], square[2], square[3] = n, left, top, side
    square[4] = 1 if swap else 0
    square[5] = patch_mask(fold64(object_key, RENDER))
    fractal_table(fold64(object_key, COLOR), settings.color, table.colors[o])


@njit
def _draw_canvas(settings, image_key, p, table):
    """Row p of the table, except its objects and its place: a background and a blur."""
    if settings.background:
        background_table(fold64(image_key, COLOR), settings.color, table.backdrop[p])
        field_key = fold64(image_key, BACKGROUND)
        table.columns_key[p] = lanes_key(field_key)
        amplitude, ratio = np.float32(0.5), amplitude_ratio(field_key)
        for level in range(settings.levels):
            table.steps[p, level] = amplitude / np.float32(511.5)
            amplitude *= ratio
    table.canvas[p, 2] = blur_weight(fold64(image_key, BLUR)) if settings.blur else 0


@kernel("tables of fractals")
def fill_table(sources: int):
    """Draw all numbers of some samples."""

    def fill(scene, indices, content, firsts, place, total, start, stop, table):
        """Rows of a table for the samples indices[start : stop] (int64[N]), samples place … of a batch of `total`.

        content (int64[N, K]): classes of a sample's objects, -1 after the last. firsts (int64[N]): objects before it. The
        second images of all samples come after all first ones in the result.
        """
        _ = sources
        work = workspace(1, 1)
        for i in range(start, stop):
            sample_key = fold64(fold64(scene.stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            count = 0
            for k in range(content.shape[1]):
                count += 1 if content[i, k] >= 0 else 0
            for image in range(scene.images):
                image_key = sample_key if scene.alone else fold64(sample_key, IMAGES + np.uint64(image))
                p, first = scene.images * i + image, scene.images * firsts[i] + image * count
                _draw_canvas(scene.settings, image_key, p, table)
                canvas = table.canvas[p]
                canvas[0], canvas[1], canvas[3] = first, count, image * total + place + i
                for k in range(count):
                    object_key = image_key if scene.alone else fold64(image_key, OBJECTS + np.uint64(k))
                    _draw_object(scene, object_key, content[i, k], first + k, work, table)

    return fill
