"""Beta variates from counter keys, the same on any number of ranks.

Beta(a, b) is X / (X + Y) of two gamma variates; gamma variates by Marsaglia & Tsang (2000, "A simple method for generating
gamma variables", ACM TOMS 26); after a rejection, the next numbers of the same key are used. If a or b is 1, the distribution
function is inverted instead: one uniform, no rejection.
"""

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import Keys, fold, uniform


def beta(keys: Keys, a: float, b: float) -> NDArray[np.float64]:
    """One variate of Beta(a, b), in [0, 1], for each key: float64 in the shape of `keys` (uint64).

    Raises ValueError unless a > 0 and b > 0.
    """
    if not (0 < a < np.inf and 0 < b < np.inf):
        raise ValueError(f"Beta({a}, {b}) is undefined: both parameters must be positive and finite")
    keys = np.asarray(keys, np.uint64)
    if b == 1:
        return uniform(keys, 1)[..., 0] ** (1 / a)
    if a == 1:
        return 1 - uniform(keys, 1)[..., 0] ** (1 / b)
    flat = keys.ravel()
    log_odds = _log_gamma_variates(fold(flat, 0), a) - _log_gamma_variates(fold(flat, 1), b)
    small = np.exp(-np.abs(log_odds))  # avoids overflow; gives 0 or 1 if X or Y is too small for a float
    return (np.where(log_odds >= 0, 1.0, small) / (1 + small)).reshape(keys.shape)


def _log_gamma_variates(keys: Keys, shape: float) -> NDArray[np.float64]:
    """Logarithms of Gamma(shape, 1) variates; for a shape below 1, of Gamma(shape + 1, 1) · U^(1/shape)."""
    boost = np.zeros(len(keys))
    if shape < 1:
        boost = np.log1p(-uniform(keys, 1)[:, 0]) / shape
    d = (shape + 1 if shape < 1 else shape) - 1 / 3
    c = 1 / np.sqrt(9 * d)
    out = np.empty(len(keys))
    pending, attempt = np.arange(len(keys)), 0
    while len(pending):  # more than 95 % are accepted per attempt
        u = 1 - uniform(fold(keys[pending], attempt), 3)
        x = np.sqrt(-2 * np.log(u[:, 0])) * np.cos(2 * np.pi * u[:, 1])
        v = (1 + c * x) ** 3
        log_v = np.log(np.where(v > 0, v, 1.0))
        accepted = (v > 0) & (np.log(u[:, 2]) < 0.5 * x**2 + d - d * v + d * log_v)
        out[pending[accepted]] = np.log(d) + log_v[accepted]
        pending, attempt = pending[~accepted], attempt + 1
    return out + boost
