"""Gaussian blur with reflected borders, along a row and down a window of rows, without negligible weights."""

import numpy as np

from wildfern.ssl.augmentation.host_loops import host_loop

_NEGLIGIBLE = 1e-7  # relative to the weight in the middle: below the precision of float32


@host_loop
def gaussian_taps(sigma, size, weights):
    """Weights of the distances 0 … radius, as in `blur.blur_matrix`; returns the radius, an even number, 0 for no blur.

    A small sigma needs fewer weights than the published kernel of a tenth of the side. weights: float32[≥ size // 20 + 3].
    """
    if sigma <= 0:
        return 0
    sigma = max(np.float64(sigma), 1e-3)
    published, radius, total = max(1, size // 20), 0, 1.0
    weights[0] = 1.0
    for d in range(1, published + 1):
        weight = np.exp(-0.5 * (d / sigma) ** 2)
        if weight < _NEGLIGIBLE:
            break
        weights[d], radius = weight, d
        total += 2 * weight
    weights[radius + 1] = 0.0
    radius += radius % 2
    for d in range(radius + 1):
        weights[d] = np.float32(weights[d] / total)
    return radius


@host_loop
def pad(line, radius, out):
    """A row (float32[size]) with its borders reflected: out (float32[size + 2 * radius])."""
    size = line.size
    for x in range(np.uint64(size)):
        out[np.uint64(radius) + x] = line[x]
    for k in range(1, radius + 1):
        out[radius - k] = line[k]
        out[radius + size - 1 + k] = line[size - 1 - k]


@host_loop
def blur_across(padded, radius, weights, out):
    """Blur concatenated padded rows along x: pixel x of out (float32[M]) is at x + radius in padded."""
    left, right = padded[radius - 1 :], padded[radius + 1 :]
    further_left, further_right = padded[radius - 2 :], padded[radius + 2 :]
    _first_five(padded[radius:], left, right, further_left, further_right, weights, out)
    for k in range(3, radius, 2):
        left, right = padded[radius - k :], padded[radius + k :]
        further_left, further_right = padded[radius - k - 1 :], padded[radius + k + 1 :]
        _next_four(left, right, further_left, further_right, weights[k:], out)


@host_loop
def blur_down(ring, y, size, radius, weights, out):
    """Blur row y of `size` rows into out (float32[M]); row r is ring[r % (2 * radius + 1)] (float32[2 * radius + 1, M])."""
    above, below = ring[_place(y - 1, size, radius)], ring[_place(y + 1, size, radius)]
    further_above, further_below = ring[_place(y - 2, size, radius)], ring[_place(y + 2, size, radius)]
    _first_five(ring[_place(y, size, radius)], above, below, further_above, further_below, weights, out)
    for k in range(3, radius, 2):
        above, below = ring[_place(y - k, size, radius)], ring[_place(y + k, size, radius)]
        further_above, further_below = ring[_place(y - k - 1, size, radius)], ring[_place(y + k + 1, size, radius)]
        _next_four(above, below, further_above, further_below, weights[k:], out)


@host_loop
def _place(y, size, radius):
    """Place of row y in the ring; rows beyond the borders are reflected."""
    y = abs(y)
    y = 2 * (size - 1) - y if y >= size else y
    return y % (2 * radius + 1)


@host_loop
def _first_five(middle, a, b, c, d, weights, out):
    u, v, w = weights[0], weights[1], weights[2]
    for x in range(np.uint64(out.size)):
        out[x] = u * middle[x] + v * (a[x] + b[x]) + w * (c[x] + d[x])


@host_loop
def _next_four(a, b, c, d, weights, out):
    v, w = weights[0], weights[1]
    for x in range(np.uint64(out.size)):
        out[x] += v * (a[x] + b[x]) + w * (c[x] + d[x])
