"""One compiled call that renders a slice of samples of a `SpectrumStream`: noise fields mixed along random color axes.

An image is mean + Σ_k s_k q_k F_k with three independent fields F_k of one spectrum. Photographs vary mostly in
brightness, less from blue to yellow and least from red to green (Ruderman, Cronin & Chiao, 1998); so does an image here:
the orthonormal axes q_k begin near gray and turn away from it at random, and the deviations s_k fall.
"""

import math

import numpy as np
from numba import njit

from ..compiling import kernel
from ..counter_rng import fold64, uniform64
from ..elementary import normal
from .colored_noise import RADII, noise_fields, normal_radii
from .fourier import LANES, TURN, unit_circle

SAMPLE_KEYS = np.uint64(1)
EXPONENTS, _FIRST_FIELDS, _LAST_FIELDS, _COLOR = (np.uint64(part) for part in range(4))
#: Standard deviations between the mean of a channel and 0 or 255, at least; one value in a hundred is clipped, or fewer.
ROOM = 1.9
_FULL, _HALF, _NONE = np.float32(255.0), np.float32(0.5), np.float32(0.0)


@njit
def _scale(axes, k, length):
    """Give column k this length; a column too short to have a direction becomes one of a single channel."""
    norm = math.sqrt(axes[0, k] * axes[0, k] + axes[1, k] * axes[1, k] + axes[2, k] * axes[2, k])
    for c in range(3):
        axes[c, k] = axes[c, k] * length / norm if norm > 1e-9 else length * (c == k)


@njit
def color_model(color_key, color, mean, axes):
    """Draw mean (float64[3]) and axes (float64[3, 3]: column k is s_k q_k), in units of the range 0 … 1.

    Without color, all channels have the first field alone.
    """
    level, contrast = 0.35 + 0.3 * uniform64(color_key, np.uint64(0)), 0.6 + 0.4 * uniform64(color_key, np.uint64(1))
    if not color:
        mean[:] = level
        axes[:] = 0.0
        axes[:, 0] = contrast * min(level, 1.0 - level) / ROOM
        return
    tilt, tint = 0.3 * uniform64(color_key, np.uint64(2)), 0.15 * uniform64(color_key, np.uint64(3))
    second = 0.05 + 0.55 * uniform64(color_key, np.uint64(4))
    third = second * (0.2 + 0.6 * uniform64(color_key, np.uint64(5)))
    for c in range(3):
        draws = np.uint64(6 + 6 * c)
        mean[c] = min(max(level + tint * normal(color_key, draws), 0.25), 0.75)
        axes[c, 0] = 1.0 + tilt * normal(color_key, draws + np.uint64(2))
        axes[c, 1] = normal(color_key, draws + np.uint64(4))
    _scale(axes, 0, 1.0)
    along = axes[0, 0] * axes[0, 1] + axes[1, 0] * axes[1, 1] + axes[2, 0] * axes[2, 1]
    for c in range(3):
        axes[c, 1] -= along * axes[c, 0]
    _scale(axes, 1, 1.0)
    for c in range(3):
        i, j = (c + 1) % 3, (c + 2) % 3
        axes[c, 2] = axes[i, 0] * axes[j, 1] - axes[j, 0] * axes[i, 1]
    _scale(axes, 1, second)
    _scale(axes, 2, third)
    largest = 1e30
    for c in range(3):
        deviation = math.sqrt(axes[c, 0] * axes[c, 0] + axes[c, 1] * axes[c, 1] + axes[c, 2] * axes[c, 2])
        largest = min(largest, min(mean[c], 1.0 - mean[c]) / (ROOM * max(deviation, 1e-6)))
    axes *= contrast * largest


@njit
def _mix(fields, mean, axes, image):
    """image (uint8[S * S * 3]) from fields (float32[4, S * S]), rounded and clipped."""
    for c in range(3):
        middle = np.float32(255.0 * mean[c])
        s0, s1, s2 = np.float32(255.0 * axes[c, 0]), np.float32(255.0 * axes[c, 1]), np.float32(255.0 * axes[c, 2])
        for i in range(np.uint64(fields.shape[1])):
            value = middle + s0 * fields[0, i] + s1 * fields[1, i] + s2 * fields[2, i]
            value = _NONE if value < _NONE else value
            value = _FULL if value > _FULL else value
            image[np.uint64(3) * i + np.uint64(c)] = np.uint8(np.int32(value + _HALF))


@kernel("colored noise")
def render_slice(sources: int):
    """Render samples of a `SpectrumStream`."""

    def render_slice(stream_key, indices, least, most, color, n, images):
        """Render sample indices[i] into images[i] (uint8[N, S, S, 3]), cropped from grids of n × n."""
        _ = sources
        size = images.shape[1]
        circle, radii = np.empty((2, TURN), np.float32), np.empty(RADII, np.float32)
        unit_circle(circle)
        normal_radii(radii)
        powers, half_done = np.empty((2, n), np.float32), np.empty((2, n * size), np.float32)
        columns, spare = np.empty((2, n * LANES), np.float32), np.empty((2, n * LANES), np.float32)
        fields = np.zeros((4, size * size), np.float32)
        mean, axes = np.empty(3), np.empty((3, 3))
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            exponents = fold64(sample_key, EXPONENTS)
            a = least + (most - least) * uniform64(exponents, np.uint64(0))
            b = least + (most - least) * uniform64(exponents, np.uint64(1))
            for pair in range(2 if color else 1):
                field_key = fold64(sample_key, _LAST_FIELDS if pair else _FIRST_FIELDS)
                target = fields[2 * pair : 2 * pair + 2]
                noise_fields(field_key, a, b, n, size, circle, radii, powers, columns, spare, half_done, target)
            color_model(fold64(sample_key, _COLOR), color, mean, axes)
            _mix(fields, mean, axes, images[i].reshape(-1))

    return render_slice
