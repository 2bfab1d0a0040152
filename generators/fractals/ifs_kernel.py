"""One compiled call that renders a slice of single-fractal samples, everything addressed by counter keys."""

import numpy as np
from numba import njit

from ..blur import blur_across, blur_down, blur_weight
from ..color import FRACTALDB_GRAY, background_table, fractal_table
from ..compiling import kernel
from ..counter_rng import fold64
from ..diamond_square import byte_field
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
from .ifs_sampler import MAX_MAPS
from .parameter_systems import SEARCH_PAD, SEARCH_SIZE, play_bounded
from .raster import PATCH, composite_row, draw_placement, fill_canvas, palette_entries


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


#: In place of systems and counts, for a stream whose systems the kernel draws.
NO_SYSTEMS = np.empty((0, MAX_MAPS, 2, 3)), np.empty(0, np.int64)


@kernel("fractals")
def render_fractals(sources: int):
    """Render samples of one fractal each."""

    def render_slice(stream_key, indices, classes, settings, systems, counts, step, images):
        """Render sample indices[i] into images[i] (uint8[N, S, 3 * S]).

        Of systems[i] (float64[N, 8, 2, 3], of which counts[i] maps), weighted and flipped as FractalDB's instances by `step`
        unless that is 0; where there are no systems, of its class's by singular values.
        """
        _ = sources
        size, levels = settings.size, settings.levels
        half = 2 ** (levels - 1)
        even = 2 * ((size + 1) // 2)
        work = workspace(settings.rows, size * size)
        grid, other = np.empty(half * (half + 1), np.float32), np.empty(half * (half + 1), np.float32)
        field_states, field_rows = np.empty(half, np.uint32), np.empty((4, half + 1), np.float32)
        field, entries = np.zeros((even, even), np.uint8), np.empty((size, size), np.uint16)
        palette = np.zeros((3, 512), np.uint8)
        lines, mixed = np.empty(3 * size + 6, np.uint8), np.empty((3, 3 * size), np.uint8)
        taps = np.empty((2, 3 * size), np.uint16)
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            chaos_key = fold64(sample_key, CHAOS)
            instance = indices[i] // classes
            if counts.size:
                n = counts[i]
                play_bounded(systems[i], n, instance, step, chaos_key, settings, work)
            else:
                n = draw_by_singular_values(stream_key, indices[i] % classes, sample_key, settings, work)
                play_system(n, False, chaos_key, settings.rows, work)
            swap = False
            fill_canvas(work.placement)
            if counts.size:
                work.placement[0] = work.placement[1] = 1.0 - 2.0 * max(2.0, size * SEARCH_PAD / SEARCH_SIZE) / size
            if settings.move:
                swap = draw_placement(fold64(sample_key, PLACEMENT), work.placement)
            elif step > 0.0:
                work.placement[4] = -1.0 if instance & 1 else 1.0
                work.placement[5] = -1.0 if instance & 2 else 1.0
            show(n, swap, chaos_key, settings.points, settings.rows, size, work.counts, work)
            color_key = fold64(sample_key, COLOR)
            fractal_table(color_key, settings.color, palette[:, 256:])
            if settings.background:
                background_table(color_key, settings.color, palette[:, :256])
                field_key = fold64(sample_key, BACKGROUND)
                byte_field(field_key, size, levels, grid, other, field_states, field_rows, field)
            render_key = fold64(sample_key, RENDER)
            full = palette_entries(settings.render, render_key, size, work.counts, work.stamped, field, entries)
            if counts.size and settings.render == PATCH and not settings.color and not full:
                palette[:, 256:] = FRACTALDB_GRAY
            outer = blur_weight(fold64(sample_key, BLUR)) if settings.blur else 0
            _finish(entries, palette, outer, taps, lines, mixed, images[i])

    return render_slice
