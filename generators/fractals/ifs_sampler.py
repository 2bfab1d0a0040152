"""Iterated function systems by their singular values: Anderson & Farrell, "Improving Fractal Pre-training", WACV 2022.

A system is n affine maps x -> A_i x + b_i with A_i = R(θ) diag(s1, s2) R(φ) D, D a diagonal of signs. The singular values
obey Σ (s1 + 2 s2) = α with α ~ U((5 + n)/2, (6 + n)/2): such systems fill the image well, so no search is needed.
"""

from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..compiling import kernel
from ..counter_rng import fold64, key, uniform64
from ..elementary import cos_sin
from ..options import checked_choice

Sampling = Literal["sequential", "uniform"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)

MAX_MAPS = 8
EVEN_ATTEMPTS = 2000
#: Upper bound of every singular value. The paper allows 1; staying below makes each map a contraction.
MAX_SINGULAR = 0.999
#: A map in factors, the form that jitter works on: θ and φ in turns, s1, s2, the signs of D, and b.
THETA, PHI, S1, S2, D1, D2, B1, B2 = range(8)
FACTORS = 8

CLASS_KEYS = np.uint64(1)
_DRAWS_PER_MAP = np.uint64(FACTORS)


@njit(inline="always")
def _between(low, high, u):
    return low + max(high - low, 0.0) * u


@njit
def map_count(class_key, fewest, most):
    """Number of maps of a class, uniform on fewest..most."""
    return fewest + int(uniform64(class_key, np.uint64(0)) * (most - fewest + 1))


@njit
def sample_singular_values(class_key, n, alpha, factors):
    """Draw the singular values of n ≥ 2 maps into factors[:n] (float64[≥ n, 8]) so that Σ (s1 + 2 s2) = alpha, one after another.

    With the ceiling c = MAX_SINGULAR: `supply` is what is left of α, `need` is what the present pair must take at least if
    all later pairs take their most, 3c. Each value is uniform between the bounds that keep the rest possible.
    """
    c = MAX_SINGULAR
    supply = alpha
    need = supply - 3.0 * c * (n - 1)
    for i in range(n):
        draw = np.uint64(2) + np.uint64(i) * _DRAWS_PER_MAP
        u1, u2 = uniform64(class_key, draw), uniform64(class_key, draw + np.uint64(1))
        if i < n - 1:
            s1 = _between(max(0.0, need / 3.0), min(c, supply), u1)
            need -= s1
            supply -= s1
            s2 = _between(max(0.0, need / 2.0), min(s1, supply / 2.0), u2)
            need += 3.0 * c - 2.0 * s2
            supply -= 2.0 * s2
        else:
            s2 = _between(max(0.0, (supply - c) / 2.0), supply / 3.0, u2)
            s1 = min(max(supply - 2.0 * s2, s2), c)
        factors[i, S1], factors[i, S2] = s1, s2


@njit
def sample_singular_values_evenly(class_key, n, alpha, factors):
    """The same, uniform on the surface of all such values: all but the last s1 are drawn uniformly between 0 and c, the last
    follows from the sum, and everything is drawn again until it lies between its s2 and c.

    After EVEN_ATTEMPTS rejections (probability below 1e-8), values are drawn one after another instead.
    """
    c = MAX_SINGULAR
    for attempt in range(EVEN_ATTEMPTS):
        attempt_key = fold64(class_key, np.uint64(attempt))
        rest = alpha
        for i in range(n - 1):
            u1, u2 = c * uniform64(attempt_key, np.uint64(2 * i)), c * uniform64(attempt_key, np.uint64(2 * i + 1))
            factors[i, S1], factors[i, S2] = max(u1, u2), min(u1, u2)
            rest -= factors[i, S1] + 2.0 * factors[i, S2]
        s2 = c * uniform64(attempt_key, np.uint64(2 * n))
        s1 = rest - 2.0 * s2
        if s2 <= s1 <= c:
            factors[n - 1, S1], factors[n - 1, S2] = s1, s2
            return
    sample_singular_values(class_key, n, alpha, factors)


@njit
def sample_factors(class_key, n, alpha, even, factors):
    """Draw a system of n maps into factors[:n] (float64[≥ n, 8]), n ≥ 2, of σ-factor `alpha`; `even`: see above."""
    if even:
        sample_singular_values_evenly(class_key, n, alpha, factors)
    else:
        sample_singular_values(class_key, n, alpha, factors)
    for i in range(n):
        draw = np.uint64(2) + np.uint64(i) * _DRAWS_PER_MAP
        factors[i, THETA] = uniform64(class_key, draw + np.uint64(2))
        factors[i, PHI] = uniform64(class_key, draw + np.uint64(3))
        factors[i, D1] = 1.0 if uniform64(class_key, draw + np.uint64(4)) < 0.5 else -1.0
        factors[i, D2] = 1.0 if uniform64(class_key, draw + np.uint64(5)) < 0.5 else -1.0
        factors[i, B1] = 2.0 * uniform64(class_key, draw + np.uint64(6)) - 1.0
        factors[i, B2] = 2.0 * uniform64(class_key, draw + np.uint64(7)) - 1.0


@njit
def compose(factors, n, system):
    """Multiply the factors out: system[:n] (float64[≥ n, 2, 3]) becomes [A | b] with A = R(θ) diag(s1, s2) R(φ) D."""
    for i in range(n):
        ct, st = cos_sin(factors[i, THETA])
        cp, sp = cos_sin(factors[i, PHI])
        s1, s2 = factors[i, S1], factors[i, S2]
        system[i, 0, 0] = (ct * s1 * cp - st * s2 * sp) * factors[i, D1]
        system[i, 0, 1] = (-ct * s1 * sp - st * s2 * cp) * factors[i, D2]
        system[i, 1, 0] = (st * s1 * cp + ct * s2 * sp) * factors[i, D1]
        system[i, 1, 1] = (-st * s1 * sp + ct * s2 * cp) * factors[i, D2]
        system[i, 0, 2] = factors[i, B1]
        system[i, 1, 2] = factors[i, B2]


@njit
def copy_system(system, n, target):
    """target[:n] = system[:n], in a loop: the assignment of a slice takes a second longer to compile."""
    for i in range(n):
        for row in range(2):
            for column in range(3):
                target[i, row, column] = system[i, row, column]


@njit
def sigma_factor(class_key, n):
    """α ~ U((5 + n)/2, (6 + n)/2), the range in which attractors are neither sparse nor filled (section 3.2)."""
    return 0.5 * (5.0 + n + uniform64(class_key, np.uint64(1)))


@kernel("systems of fractals")
def _sample_many(sources: int):
    def sample_many(stream_key, classes, fewest, most, even, systems, counts):
        _ = sources
        factors = np.empty((most, FACTORS))
        for row in range(classes.size):
            class_key = fold64(fold64(stream_key, CLASS_KEYS), np.uint64(classes[row]))
            counts[row] = map_count(class_key, fewest, most)
            alpha = sigma_factor(class_key, counts[row])
            sample_factors(class_key, counts[row], alpha, even, factors)
            compose(factors, counts[row], systems[row])

    return sample_many


def sample_systems(
    seed: int,
    classes: NDArray[np.int64],
    maps: tuple[int, int] = (2, 4),
    sampling: Sampling = "sequential",
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The systems of some classes of an `IFSStream` of this seed, before jitter.

    Returns systems float64[N, maps[1], 2, 3] as [A | b], zero after the last map, and the number of maps int64[N].
    """
    classes = np.ascontiguousarray(classes, np.int64)
    systems = np.zeros((classes.size, maps[1], 2, 3))
    counts = np.zeros(classes.size, np.int64)
    even = checked_choice("sampling", sampling, SAMPLINGS) == "uniform"
    _sample_many(np.uint64(key("ifs", seed)), classes, maps[0], maps[1], even, systems, counts)
    return systems, counts
