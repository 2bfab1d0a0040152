"""What is random in a neural fractal: the network, view and share of a class, and how an instance departs from them."""

from typing import NamedTuple

import numpy as np
from numba import njit

from ..elementary import cos_sin, drawn, exp, folded, normal
from .network import MOST_LAYERS, MOST_UNITS, draw_network

_NETWORK, _VIEW = np.int64(0), np.int64(1)
#: What the pixels that do not escape show.
FLAT, SHADED, SECOND = range(3)


class Settings(NamedTuple):
    """The arguments of a `NeuralFractalStream`, as kernels take them."""

    units: int
    layers: int
    power: int
    fewest: int
    most: int
    variation: float
    color: bool
    samples: int


@njit
def draw_class(class_key, settings, network, view):
    """Fill the network and the view (float32[5]) of a class; returns iterations, share that escapes, and what the rest shows.

    Deviations of weights, sizes and places are those for which a few percent of classes or more have structure; most that have
    none are noise, of networks that are chaotic nearly everywhere.
    """
    key = folded(class_key, _VIEW)
    gain, bias, outer = 0.5 + 0.45 * drawn(key, 0), 0.6 * drawn(key, 1), 0.6 + 1.2 * drawn(key, 2)
    draw_network(folded(class_key, _NETWORK), settings.units, settings.layers, gain, bias, outer, network)
    iterations = settings.fewest + int(drawn(key, 3) * (settings.most - settings.fewest + 1))
    radius = 0.12 * exp(2.5 * drawn(key, 4))  # 0.12 to 1.5
    c, s = cos_sin(drawn(key, 5))
    view[0], view[1] = np.float32(0.7 * normal(key, np.uint64(6))), np.float32(0.7 * normal(key, np.uint64(8)))
    view[2], view[3], view[4] = np.float32(radius * c), np.float32(radius * s), np.float32(1.0)
    rest = drawn(key, 11)
    shown = FLAT if rest < 0.25 else (SHADED if rest < 0.65 else SECOND)
    return iterations, 0.4 + 0.5 * drawn(key, 10), shown


@njit
def vary(instance_key, strength, settings, network, view, moved, seen):
    """An instance's network and view (moved, seen) from its class's: at strength 1, weights change by up to 3 %.

    The view turns by up to a tenth of a circle, zooms by up to a third, shifts by up to a fifth of its side; half are mirrored.
    """
    draw = 8
    key = instance_key
    for layer in range(settings.layers + 1):
        for i in range(1 if layer == settings.layers else settings.units):
            for j in range(MOST_UNITS + 1):
                for part in range(2):
                    factor = 1.0 + 0.03 * strength * (2.0 * drawn(key, draw) - 1.0)
                    moved[layer, i, j, part] = network[layer, i, j, part] * np.float32(factor)
                    draw += 1
    zoom = exp(0.29 * strength * (2.0 * drawn(key, 0) - 1.0))
    c, s = cos_sin(0.1 * strength * (2.0 * drawn(key, 1) - 1.0))
    across, along = np.float64(view[2]), np.float64(view[3])
    a, b = 0.4 * strength * (2.0 * drawn(key, 2) - 1.0), 0.4 * strength * (2.0 * drawn(key, 3) - 1.0)
    seen[0] = np.float32(view[0] + a * across - b * along)
    seen[1] = np.float32(view[1] + a * along + b * across)
    seen[2], seen[3] = np.float32(zoom * (c * across - s * along)), np.float32(zoom * (c * along + s * across))
    seen[4] = np.float32(-1.0 if drawn(key, 4) < 0.5 else 1.0)


#: Shape of a network's numbers.
NETWORK = (MOST_LAYERS + 1, MOST_UNITS, MOST_UNITS + 1, 2)
