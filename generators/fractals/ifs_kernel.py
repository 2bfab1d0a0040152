"""One compiled call that renders a slice of single-fractal samples, with counter-based random numbers."""

import numpy as np
from numba import njit

from ..blur import blur_space, blur_weight, row_painter
from ..color import FRACTALDB_GRAY, background_table, fractal_table
from ..compiling import kernel
from ..counter_rng import fold64
from ..diamond_square import byte_field, field_space
from .chaos_game import BY_DETERMINANT
from .fractal import (
    AS_DRAWN,
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
def _compose(source, row, line):
    entries, palette = source
    composite_row(entries[row], palette, line)


_paint = row_painter(_compose)

#: Placeholders for systems and counts, for streams whose systems the kernel draws.
NO_SYSTEMS = np.empty((0, MAX_MAPS, 2, 3)), np.empty(0, np.int64)


@kernel("fractals")
def render_fractals(sources: int):
    """Render samples of one fractal each."""

    def render_slice(stream_key, indices, classes, settings, systems, counts, step, images):
        """Render sample indices[i] into images[i] (uint8[N, S, 3 * S]).

        Sample i shows systems[i] (float64[N, 8, 2, 3], the first counts[i] maps), weighted and flipped by `step` as FractalDB's
        instances unless `step` is 0. Without systems, the system of its class is drawn by singular values.
        """
        _ = sources
        size, levels = settings.size, settings.levels
        work, clouds, soft = workspace(settings.rows, size * size), field_space(size, levels), blur_space(size)
        palette, entries = np.zeros((3, 512), np.uint8), np.empty((size, size), np.uint16)
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            chaos_key = fold64(sample_key, CHAOS)
            instance = indices[i] // classes
            if counts.size:
                n = counts[i]
                play_bounded(systems[i], n, instance, step, chaos_key, settings, work)
            else:
                n = draw_by_singular_values(stream_key, indices[i] % classes, sample_key, settings, work)
                play_system(n, BY_DETERMINANT, chaos_key, settings.rows, work)
            swap = AS_DRAWN
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
                byte_field(fold64(sample_key, BACKGROUND), size, levels, clouds)
            render_key = fold64(sample_key, RENDER)
            full = palette_entries(settings.render, render_key, size, work.counts, work.stamped, clouds.field, entries)
            if counts.size and settings.render == PATCH and not settings.color and not full:
                for level in range(256, 512):
                    palette[0, level] = palette[1, level] = palette[2, level] = FRACTALDB_GRAY
            outer = blur_weight(fold64(sample_key, BLUR)) if settings.blur else 0
            _paint((entries, palette), outer, soft, images[i])

    return render_slice
