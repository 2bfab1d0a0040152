"""Random complex networks with tanh units: z → (w · tanh(W … tanh(W z + b) … + b) + b)^p, for many z side by side.

Values are in single precision, real and imaginary parts apart, LANES numbers in a row, so that loops are vectorized.
"""

import math

import numpy as np
from numba import njit

from ..elementary import normal
from ..elementary32 import cos_turns, sin_turns

#: Numbers that go through a network together, at most. Of numpy's type: functions would be compiled again for a literal.
LANES = np.int64(576)
MOST_UNITS, MOST_LAYERS = 16, 6
_0, _1, _2, _HALF, _PER_TURN = (np.float32(v) for v in (0.0, 1.0, 2.0, 0.5, 1.0 / math.pi))
#: Beyond this real part, tanh is ±1 in single precision.
_SATURATED, _64TH = np.float32(16.0), np.float32(1.0 / 64.0)
#: Least denominator of tanh: near its poles, |tanh| ends at some thousand instead of at infinity.
_LEAST = np.float32(1e-6)
_C2, _C3, _C4, _C5 = (np.float32(1.0 / math.factorial(k)) for k in (2, 3, 4, 5))


@njit
def draw_network(network_key, units, layers, gain, bias, outer, network):
    """Fill network (float32[MOST_LAYERS + 1, MOST_UNITS, MOST_UNITS + 1, 2]) with complex normal numbers.

    network[l, i, j] is the weight from unit j of layer l to unit i of layer l + 1, with deviation gain / √(units of layer l) in
    both parts; network[l, i, -1] is that unit's bias, with deviation `bias`. The last layer has one unit, and `outer` times
    the weights.
    """
    draw = np.uint64(0)
    for layer in range(layers + 1):
        inputs, outputs = 1 if layer == 0 else units, 1 if layer == layers else units
        scale = gain / math.sqrt(inputs) * (outer if layer == layers else 1.0)
        for i in range(outputs):
            for j in range(inputs + 1):
                for part in range(2):
                    entry = j if j < inputs else MOST_UNITS
                    deviation = scale if j < inputs else bias
                    network[layer, i, entry, part] = np.float32(deviation * normal(network_key, draw))
                    draw += np.uint64(2)


@njit
def tanh_lanes(x, y, n):
    """tanh(x + i y) of n numbers, in place: float32[≥ n], |y| < 10⁶; errors below 1e-4 away from poles.

    With e = exp(-2 |x|): (± (1 - e²) + 2 i e sin 2y) / (1 + e² + 2 e cos 2y).
    """
    for k in range(np.uint64(n)):
        size = -x[k] if x[k] < _0 else x[k]
        # e^-2|x| as the 64th power of its 64th root, by Taylor's series.
        t = (size if size < _SATURATED else _SATURATED) * _2 * _64TH
        e = _1 - t * (_1 - t * (_C2 - t * (_C3 - t * (_C4 - t * _C5))))
        e = e * e
        e = e * e
        e = e * e
        e = e * e
        e = e * e
        e = e * e
        turns = y[k] * _PER_TURN
        below = _1 + e * e + _2 * e * cos_turns(turns)
        inverse = _1 / (below if below > _LEAST else _LEAST)
        real = (_1 - e * e) * inverse
        x[k] = -real if x[k] < _0 else real
        y[k] = _2 * e * sin_turns(turns) * inverse


@njit
def _add_product(w, v, a, b, n, x, y):
    """x + i y += (w + i v) (a + i b)."""
    for k in range(np.uint64(n)):
        x[k] += w * a[k] - v * b[k]
        y[k] += w * b[k] + v * a[k]


@njit
def _fill(row, n, value):
    for k in range(np.uint64(n)):
        row[k] = value


@njit
def _multiply(a, b, n, x, y):
    """x + i y *= a + i b."""
    for k in range(np.uint64(n)):
        real = x[k] * a[k] - y[k] * b[k]
        y[k] = x[k] * b[k] + y[k] * a[k]
        x[k] = real


@njit
def apply_network(network, units, layers, power, z, n, hidden):
    """The network's value at n numbers z (float32[2, LANES]: real, imaginary parts), returned as a view float32[2, LANES].

    hidden: float32[2, MOST_UNITS, 2, LANES] workspace, which holds the result until the next call.
    """
    for layer in range(layers + 1):
        inputs, outputs = 1 if layer == 0 else units, 1 if layer == layers else units
        target, source = hidden[layer % 2], hidden[(layer + 1) % 2]
        for i in range(outputs):
            x, y = target[i, 0], target[i, 1]
            _fill(x, n, network[layer, i, MOST_UNITS, 0])
            _fill(y, n, network[layer, i, MOST_UNITS, 1])
            for j in range(inputs):
                a, b = (z[0], z[1]) if layer == 0 else (source[j, 0], source[j, 1])
                _add_product(network[layer, i, j, 0], network[layer, i, j, 1], a, b, n, x, y)
            if layer < layers:
                tanh_lanes(x, y, n)
    result, base = hidden[layers % 2, 0], hidden[(layers + 1) % 2, 0]
    for k in range(np.uint64(n)):
        base[0, k], base[1, k] = result[0, k], result[1, k]
    for _ in range(power - 1):
        _multiply(base[0], base[1], n, result[0], result[1])
    return result
