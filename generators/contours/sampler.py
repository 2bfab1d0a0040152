"""Parameters of contour classes and of their instances, in pixels of an image 512 pixels wide.

radial: RCDB (Kataoka et al., CVPR 2022). atom: VisualAtom (Takashima et al., CVPR 2023). The ranges are those of the published
data sets; lengths that are whole pixels there are real numbers here.
"""

from typing import Literal, get_args

import numpy as np
from numba import njit

from ..counter_rng import draw64, uniform64
from ..elementary import cos_sin, log

Kind = Literal["radial", "atom"]
KINDS: tuple[str, ...] = get_args(Kind)
ATOM = KINDS.index("atom")

#: Columns of a row of parameters.
PARAMETERS = 9
VERTICES, LINES, PERLIN, GROWTH, RADIUS, OVAL_X, OVAL_Y, ORDER_1, ORDER_2 = range(PARAMETERS)
PUBLISHED_SIZE = 512.0
MOST_VERTICES = 1000
_LEAST_REACH = 32.0
_TAIL = 0.13806923731089282  # e^-1.98, the part of an exponential law of mean 100 beyond 198

_LOW_12, _LOW_10, _S12, _S22, _S32 = (np.uint64(number) for number in (4095, 1023, 12, 22, 32))
_1, _2, _6, _10, _15 = (np.float32(number) for number in (1.0, 2.0, 6.0, 10.0, 15.0))
_HALF, _CELL, _MIDDLE = np.float32(0.5), np.float32(1.0 / 4096.0), np.float32(511.5)


@njit
def _sample_oval(key, first_draw, least_radius, most_radius, parameters):
    """Radius and oval factors of the first contour, the radius large enough for the last contour to be seen."""
    radius = least_radius + (most_radius - least_radius) * uniform64(key, first_draw)
    reach = parameters[LINES] * (parameters[PERLIN] + parameters[GROWTH])
    parameters[RADIUS] = max(radius, _LEAST_REACH - reach)
    parameters[OVAL_X] = 1.0 + uniform64(key, first_draw + np.uint64(1))
    parameters[OVAL_Y] = 1.0 + uniform64(key, first_draw + np.uint64(2))


@njit
def sample_class(class_key, kind, fewest, most, least_perlin, most_perlin, parameters):
    """Fill parameters (float64[PARAMETERS]) with those of a class; `kind` is a position in KINDS.

    Number of vertices: uniform in 200 … 1000 (atom), or exponential with mean 100, within 3 … 200 (radial). Number of lines and
    Perlin coefficient: uniform within the bounds given. Growth: U(0, .1). Atoms: radius U(10, 60), but such that the last
    contour ends 32 from the center at least; oval factors U(1, 2); orders, two different ones of 0 … 20.
    """
    u = uniform64(class_key, np.uint64(0))
    parameters[LINES] = fewest + int(uniform64(class_key, np.uint64(1)) * (most - fewest + 1))
    parameters[PERLIN] = least_perlin + uniform64(class_key, np.uint64(2)) * (most_perlin - least_perlin)
    parameters[GROWTH] = 0.1 * uniform64(class_key, np.uint64(3))
    if kind != ATOM:
        parameters[VERTICES] = min(int(3.0 - 100.0 * log(1.0 - u * (1.0 - _TAIL))), 200)
        return
    parameters[VERTICES] = 200 + int(801.0 * u)
    order, other = int(21.0 * uniform64(class_key, np.uint64(4))), int(20.0 * uniform64(class_key, np.uint64(5)))
    parameters[ORDER_1], parameters[ORDER_2] = order, other + 1 if other >= order else other
    _sample_oval(class_key, np.uint64(6), 10.0, 60.0, parameters)


@njit
def sample_instance(instance_key, kind, parameters):
    """Add an instance's parameters to its class's, and return where its center lies, in sides of the canvas.

    radial: radius U(0, 100), with the same condition, and oval factors U(1, 2); center U(56, 456) / 512. atom: center
    U(32, 480) / 512. The first contour of any such image crosses the canvas.
    """
    margin = 0.0625
    if kind != ATOM:
        margin = 0.109375
        _sample_oval(instance_key, np.uint64(2), 0.0, 100.0, parameters)
    x, y = uniform64(instance_key, np.uint64(0)), uniform64(instance_key, np.uint64(1))
    return margin + (1.0 - 2.0 * margin) * x, margin + (1.0 - 2.0 * margin) * y


@njit
def vertex_stride(vertices, size):
    """Step between rendered vertices, such that a contour has at most about eight vertices per pixel of the image side."""
    return max(int(vertices) // (4 * size), 1)


@njit
def prepare(kind, parameters, stride, scale, x, y, mean_step, noise_step):
    """First contour and steps of its vertices: x, y (float32[vertices]) about the center, steps float32[2, vertices].

    From line to line vertex i, at the angle θ, moves by -(cos θ (N_x - w), sin θ (N_y - w)) with w the growth and
    N = 2 c P - c (radial) or N = c P - c - sin(n₁ θ) / 2 - sin(n₂ θ) / 2 (atom), P being Perlin noise: that is, by
    mean_step - noise_step P. All in pixels, `scale` to each of the 512. Returns the number of vertices drawn.
    """
    vertices = int(parameters[VERTICES])
    noise = parameters[PERLIN] * (1.0 if kind == ATOM else 2.0)
    count = 0
    for vertex in range(0, vertices, stride):
        turns = vertex / vertices
        c, s = cos_sin(turns)
        outward = parameters[PERLIN] + parameters[GROWTH]
        if kind == ATOM:
            outward += 0.5 * (cos_sin(parameters[ORDER_1] * turns)[1] + cos_sin(parameters[ORDER_2] * turns)[1])
        x[count] = scale * c * parameters[RADIUS] * parameters[OVAL_X]
        y[count] = scale * s * parameters[RADIUS] * parameters[OVAL_Y]
        mean_step[0, count], mean_step[1, count] = scale * c * outward, scale * s * outward
        noise_step[0, count], noise_step[1, count] = scale * c * noise, scale * s * noise
        count += 1
    return count


@njit(inline="always")
def perlin(bits):
    """Perlin's noise on the line (Perlin, 2002) at a random place, in [-1, 1], from the low 32 of these bits (uint64).

    2 ((1 - f) g₀ t + f g₁ (t - 1)) with f = 6 t⁵ - 15 t⁴ + 10 t³, t uniform in (0, 1) and slopes g uniform in [-1, 1].
    """
    t = (np.float32(np.int32(bits & _LOW_12)) + _HALF) * _CELL
    here = (np.float32(np.int32((bits >> _S12) & _LOW_10)) - _MIDDLE) / _MIDDLE
    there = (np.float32(np.int32((bits >> _S22) & _LOW_10)) - _MIDDLE) / _MIDDLE
    fade = t * t * t * (t * (t * _6 - _15) + _10)
    return _2 * ((_1 - fade) * here * t + fade * there * (t - _1))


@njit
def advance(line_key, count, stride, mean_step, noise_step, x, y):
    """Move each vertex to the next contour by its own noise, as published; x, y: float32[≥ count + 1].

    The contour closes without a seam. Entry `count` repeats entry 0.
    """
    for i in range(count):
        bits = draw64(line_key, np.uint64(i * stride))
        x[i] += mean_step[0, i] - noise_step[0, i] * perlin(bits)
        y[i] += mean_step[1, i] - noise_step[1, i] * perlin(bits >> _S32)
    x[count], y[count] = x[0], y[0]
