"""One compiled call that renders a slice of samples of an `LSystemStream`, with counter-based random numbers."""

from typing import Literal, get_args

import numpy as np
from numba import njit

from ..blur import blur_space, blur_weight, row_painter
from ..color import background_table
from ..compiling import kernel, stamp_of_sources
from ..counter_rng import fold64, uniform64
from ..diamond_square import byte_field, field_space
from ..texture import lattice_noise
from ..xorshift import seed_lanes, xorshift32
from .curriculum import ease, progress
from .grammar import MAX_BRACKETS, MAX_ITERATIONS
from .layout import CONTRAST, THINNEST_LINE, between, lay_out
from .presets import THINNEST
from .strokes import paint_stroke, trace_middle
from .texture_fill import BLACK, WHITE, cell_means, cell_side, fill_layer, leave_room, limit_detail, shares_of_end
from .textures import Texture, draw_texture, empty_texture, scratch_for

Background = Literal["clouds", "plain", "white", "texture"]
BACKGROUNDS: tuple[str, ...] = get_args(Background)
_CLOUDS, _WHITE, _TEXTURE = (BACKGROUNDS.index(name) for name in ("clouds", "white", "texture"))
Color = Literal["preset", "random", "texture"]
COLORS: tuple[str, ...] = get_args(Color)
_RANDOM, _FILL = COLORS.index("random"), COLORS.index("texture")

_SAMPLE_KEYS = np.uint64(2)
_LAYOUT, _GROUND, _CLOUD_FIELD, _SEGMENT, _CONTRAST, _BLUR, _NOISE, _GROUND_TEXTURE, _BRANCH_TEXTURE = (
    np.uint64(part) for part in range(9)
)
_MIDDLE = 128
#: A random color nearer than this to the background's in all channels is replaced by one on the other side.
_NEAR = 64.0
_TEN_BITS, _HALF_OF_THEM = np.uint32(1023), np.float32(511.5)
_HALF, _TOP, _BOTTOM = np.float32(0.5), np.float32(255.0), np.float32(0.0)


@njit
def _ground_table(ground_key, background, random_color, colors, table):
    """table (uint8[3, 256]): RGB for the values of the background's field; `plain` has its middle everywhere.

    Between the preset's shade and light, of a range 0.4 to 1 times as wide, all 0.85 to 1.08 times as bright.
    """
    if background == _WHITE:
        for i in range(256):
            table[0, i] = table[1, i] = table[2, i] = 255
    elif random_color:
        background_table(ground_key, True, table)
    else:
        spread = 0.4 + 0.6 * uniform64(ground_key, np.uint64(20))
        brightness = 0.85 + 0.23 * uniform64(ground_key, np.uint64(21))
        for channel in range(3):
            shade, light = colors[1, channel], colors[2, channel]
            for i in range(256):
                level = 0.5 * (shade + light) + spread * (i / 255.0 - 0.5) * (light - shade)
                table[channel, i] = np.uint8(min(max(level * brightness + 0.5, 0.0), 255.0))


@njit
def _segment_color(segment_key, random_color, variation, colors, table, color):
    """color (float32[3]) of one segment: random, or the preset's ± variation gray levels, the same for all channels."""
    if random_color:
        near = True
        for channel in range(3):
            level = int(256.0 * uniform64(segment_key, np.uint64(channel)))
            color[channel] = level
            near = near and abs(level - table[channel, _MIDDLE]) < _NEAR
        if near:
            for channel in range(3):
                color[channel] += np.float32(128.0 if color[channel] < 128.0 else -128.0)
    else:
        step = variation * (2.0 * uniform64(segment_key, np.uint64(0)) - 1.0)
        for channel in range(3):
            color[channel] = min(max(colors[0, channel] + step, 0.0), 255.0)


@njit
def _draw_textures(sample_key, background, color, size, levels, scratch, ground, branch, table):
    """Draw the textures of an image's background and branches (each a `Texture`); returns which end these are mixed with.

    With a texture as background, table (uint8[3, 256]) gets its colors; else it and ground's field hold the background. With
    textured branches, the means of branch become shares of the end, WHITE or BLACK, as in `shares_of_end`.
    """
    if background == _TEXTURE:
        draw_texture(fold64(sample_key, _GROUND_TEXTURE), size, levels, ground, scratch)
        mean = limit_detail(ground, size)
    else:
        ground.table[:] = table
        mean = cell_means(ground, size)[0]
    end = BLACK
    if color == _FILL:
        draw_texture(fold64(sample_key, _BRANCH_TEXTURE), size, levels, branch, scratch)
        end = WHITE if limit_detail(branch, size) > mean else BLACK
        if background == _TEXTURE:
            leave_room(end, ground)
        shares_of_end(end, ground.means, branch.means)
    if background == _TEXTURE:
        for channel in range(3):
            for i in range(256):
                table[channel, i] = np.uint8(ground.table[channel, i] + _HALF)
    return end


@njit
def _clear(alpha):
    for row in range(alpha.shape[0]):
        for column in range(alpha.shape[1]):
            alpha[row, column] = _BOTTOM


@njit
def _composite_row(field, table, contrast, alpha, layer, line):
    """One row of RGB into line (uint8[≥ 3 S]): the background, and where alpha (float32[S]) is not 0 the layer over it."""
    for column in range(np.uint64(field.size)):
        a, at = alpha[column] * contrast, np.uint64(3) * column
        for channel in range(np.uint64(3)):
            ground = table[channel, field[column]]
            if a > _BOTTOM:
                below = np.float32(ground)
                line[at + channel] = np.uint8(below + a * (layer[column, channel] - below) + _HALF)
            else:
                line[at + channel] = ground


@njit
def _add_noise(states, scale, line):
    """Add to every pixel of an RGB row (uint8[3 S]) one number that is uniform on ± 511.5 scale, rounded."""
    for column in range(np.uint64(states.size)):
        states[column] = xorshift32(states[column])
        noise = (np.float32(np.int32(states[column] & _TEN_BITS)) - _HALF_OF_THEM) * scale + _HALF
        at = np.uint64(3) * column
        for channel in range(np.uint64(3)):
            level = np.float32(line[at + channel]) + noise
            level = _BOTTOM if level < _BOTTOM else level
            line[at + channel] = np.uint8(_TOP if level > _TOP else level)


@njit
def _compose(source, row, line):
    field, table, contrast, alpha, layer = source
    _composite_row(field[row, : alpha.shape[0]], table, contrast, alpha[row], layer[row], line)


_paint = row_painter(_compose)


@kernel("branching lines")
def render_slice(sources: int):
    """Render samples of an `LSystemStream`."""
    sources ^= stamp_of_sources(lattice_noise.__file__)  # textures call functions of its folder

    def render_slice(
        stream_key,
        indices,
        spans,
        odds,
        most_segments,
        most_symbols,
        taper,
        smooth,
        pieces,
        jag,
        color,
        variation,
        colors,
        background,
        softness,
        blur,
        noise,
        curriculum,
        levels,
        images,
        masks,
        widths,
        centerlines,
        counts,
    ):
        """Render sample indices[i] into row i of images (uint8[N, S, 3 * S]) and of masks, widths and centerlines.

        These three (uint8, float32, uint8, [N, S, S]) are all 0 before.
        Returns the segments (float64[bound, 6]) of the last sample; counts (int64[N]) gets their numbers.
        """
        _ = sources
        size = images.shape[1]
        segments = np.empty((most_segments, 6))
        rewriting, symbols = np.empty((3, MAX_ITERATIONS + 1), np.int64), np.empty(most_symbols, np.uint8)
        workspace = (rewriting, symbols, np.empty(6), np.empty(2), np.empty((MAX_BRACKETS, 6)))
        clouds, soft, table = field_space(size, levels), blur_space(size), np.empty((3, 256), np.uint8)
        clouds.field[:] = _MIDDLE
        stroke_color, states = np.empty(3, np.float32), np.empty(size, np.uint32)
        random_color, textured, filled = color == _RANDOM, background == _TEXTURE or color == _FILL, color == _FILL
        side, cells = (size, -(-size // cell_side(size))) if textured else (2, 1)
        scratch, branch = scratch_for(side), empty_texture(side, levels if textured else 1, cells)
        ground = Texture(clouds, np.empty((3, 256), np.float32), np.empty((cells, cells)))
        eased, end = np.empty(spans.shape), BLACK
        alpha, layer = np.empty((size, size), np.float32), np.empty((size, size, 3), np.float32)
        form = max(THINNEST_LINE, THINNEST * size), taper, smooth, pieces, jag
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, _SAMPLE_KEYS), np.uint64(indices[i]))
            ease(spans, progress(indices[i], curriculum), eased)
            count = lay_out(fold64(sample_key, _LAYOUT), eased, odds, size, form, workspace, segments)
            _ground_table(fold64(sample_key, _GROUND), background, random_color, colors, table)
            if background == _CLOUDS:
                byte_field(fold64(sample_key, _CLOUD_FIELD), size, levels, clouds)
            if textured:
                end = _draw_textures(sample_key, background, color, size, levels, scratch, ground, branch, table)
            _clear(alpha)
            covered = painted = 0
            colors_key = fold64(sample_key, _SEGMENT)
            # Stop when strokes cover half of the image, so that some background always remains.
            while painted < count and 2 * covered <= size * size:
                segment_key = fold64(colors_key, np.uint64(painted // pieces))
                _segment_color(segment_key, random_color, variation, colors, table, stroke_color)
                covered += paint_stroke(segments[painted], stroke_color, softness, masks[i], widths[i], alpha, layer)
                trace_middle(segments[painted], centerlines[i])
                painted += 1
            counts[i] = painted
            if filled:
                fill_layer(branch, end, alpha, layer)
            contrast = np.float32(between(eased[CONTRAST], uniform64(fold64(sample_key, _CONTRAST), np.uint64(0))))
            outer = blur_weight(fold64(sample_key, _BLUR)) if blur else 0
            _paint((clouds.field, table, contrast, alpha, layer), outer, soft, images[i])
            if noise > 0.0:
                seed_lanes(fold64(sample_key, _NOISE), states)
                for row in range(size):
                    _add_noise(states, np.float32(noise) / _HALF_OF_THEM, images[i, row])
        return segments

    return render_slice
