"""One compiled call that renders a slice of samples of an `IFSStream`, everything addressed by counter keys."""

import numpy as np
from numba import njit

from .chaos_game import LANES, bounding_box, play
from .color import background_table, fractal_table
from .compiling import kernel
from .counter_rng import fold64
from .diamond_square import byte_field
from .ifs_sampler import CLASS_KEYS, FACTORS, MAX_MAPS, compose, map_count, sample_factors
from .jitter import JITTERS, jitter_factors
from .raster import (
    blur_across,
    blur_down,
    blur_weight,
    box_of_the_fullest,
    composite_row,
    count_points,
    palette_entries,
    placement,
    too_sparse,
)

_SAMPLE_KEYS = np.uint64(2)
_JITTER, _CHAOS, _PLACEMENT, _RENDER, _COLOR, _BACKGROUND, _BLUR = (np.uint64(part) for part in range(7))
ATTEMPTS = 6
_UNCHANGED = JITTERS.index("none")


@njit
def _finish(entries, palette, outer, taps, lines, mixed, image):
    """Composite and blur row by row: three blurred lines at a time stay in the nearest cache."""
    size = entries.shape[0]
    if outer == 0:
        for row in range(size):
            composite_row(entries[row], palette, image[row])
        return
    taps[0] = outer
    taps[1] = 256 - 2 * outer
    composite_row(entries[0], palette, lines[3:])
    blur_across(lines, taps, mixed[0])
    for row in range(size):
        following = min(row + 1, size - 1)
        if following > row:
            composite_row(entries[following], palette, lines[3:])
            blur_across(lines, taps, mixed[following % 3])
        blur_down(mixed[max(row - 1, 0) % 3], mixed[row % 3], mixed[following % 3], taps, image[row])


@kernel("fractals")
def render_slice(sources: int):
    """Render samples of an `IFSStream`."""

    def render_slice(
        stream_key,
        indices,
        classes,
        fewest,
        most,
        points,
        kind,
        render,
        color,
        background,
        move,
        blur,
        rows,
        levels,
        images,
    ):
        """Render sample indices[i] into images[i] (uint8[N, S, 3 * S])."""
        _ = sources
        size = images.shape[1]
        half = 2 ** (levels - 1)
        even = 2 * ((size + 1) // 2)
        factors, system = np.empty((MAX_MAPS, FACTORS)), np.empty((MAX_MAPS, 2, 3))
        maps, limits = np.empty((6, 8), np.float32), np.empty(8, np.uint32)
        states, track = np.empty(LANES, np.uint32), np.empty(rows * 2 * LANES, np.float32)
        low, high = np.empty(2 * LANES, np.float32), np.empty(2 * LANES, np.float32)
        affine, cells = np.empty(6, np.float32), np.empty(LANES, np.int32)
        counts = np.empty(size * size + 1, np.uint32)
        stamped = np.empty(size * size + 1, np.uint32)
        grid, other = np.empty(half * (half + 1), np.float32), np.empty(half * (half + 1), np.float32)
        field_states, field_rows = np.empty(half, np.uint32), np.empty((4, half + 1), np.float32)
        field, entries = np.zeros((even, even), np.uint8), np.empty((size, size), np.uint16)
        palette = np.zeros((3, 512), np.uint8)
        lines, mixed = np.empty(3 * size + 6, np.uint8), np.empty((3, 3 * size), np.uint8)
        taps = np.empty((2, 3 * size), np.uint16)
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, _SAMPLE_KEYS), np.uint64(indices[i]))
            label = indices[i] % classes
            class_key = fold64(fold64(stream_key, CLASS_KEYS), np.uint64(label))
            n = map_count(class_key, fewest, most)
            sample_factors(class_key, n, factors)
            if kind != _UNCHANGED:
                jitter_factors(kind, fold64(sample_key, _JITTER), n, factors)
            compose(factors, n, system)
            play(system, n, False, fold64(sample_key, _CHAOS), rows, maps, limits, states, track)
            box = bounding_box(track, points, low, high)
            placement_key = fold64(sample_key, _PLACEMENT)
            swap = placement(placement_key, size, box, move, affine)
            count_points(track, points, affine, swap, size, cells, counts)
            # As placed; if little is seen so, all of it; if most of that lies in a few pixels, closer and closer to these;
            # if that is a single point, because one map is chosen nearly always, all maps equally often.
            for attempt in range(ATTEMPTS):
                if not too_sparse(counts, points):
                    break
                if attempt == ATTEMPTS - 1:
                    play(system, n, True, fold64(sample_key, _CHAOS), rows, maps, limits, states, track)
                    box = bounding_box(track, points, low, high)
                elif attempt > 0:
                    box = box_of_the_fullest(counts, size, affine, swap)
                swap = placement(placement_key, size, box, False, affine)
                count_points(track, points, affine, swap, size, cells, counts)
            color_key = fold64(sample_key, _COLOR)
            fractal_table(color_key, color, palette[:, 256:])
            if background:
                background_table(color_key, color, palette[:, :256])
                field_key = fold64(sample_key, _BACKGROUND)
                byte_field(field_key, size, levels, grid, other, field_states, field_rows, field)
            palette_entries(render, fold64(sample_key, _RENDER), size, counts, stamped, field, entries)
            outer = blur_weight(fold64(sample_key, _BLUR)) if blur else 0
            _finish(entries, palette, outer, taps, lines, mixed, images[i])

    return render_slice
