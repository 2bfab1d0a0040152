"""Many small random generators side by side: Marsaglia's xorshift (2003), one 32-bit state per lane, seeded from a key.

For inner loops that need one number per step and lane; numbers drawn only once come from `counter_rng`.
"""

import numpy as np
from numba import njit

from .counter_rng import draw64

_S13, _S17, _S5, _S32 = np.uint32(13), np.uint32(17), np.uint32(5), np.uint64(32)


@njit(inline="always")
def xorshift32(state):
    """Marsaglia's xorshift on one nonzero uint32."""
    state = np.uint32(state ^ np.uint32(state << _S13))
    state = np.uint32(state ^ np.uint32(state >> _S17))
    return np.uint32(state ^ np.uint32(state << _S5))


@njit
def seed_lanes(lanes_key, states):
    """Fill states (uint32[M]) with nonzero seeds from a key."""
    for lane in range(states.size):
        states[lane] = np.uint32(draw64(lanes_key, np.uint64(lane)) >> _S32) | np.uint32(1)
