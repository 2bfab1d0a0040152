"""Random states on the GPU: the numbers of `counter_rng.draw64`, `xorshift.seed_lanes` and `xorshift.xorshift32`."""

import triton
import triton.language as tl

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_M1 = tl.constexpr(0xBF58476D1CE4E5B9)
_M2 = tl.constexpr(0x94D049BB133111EB)


@triton.jit
def seed_lanes(key, lanes):
    """Nonzero seeds, uint32, of these lanes (int32) from a key (uint64)."""
    z = key + (lanes.to(tl.uint64) + 1) * _GOLDEN
    z = (z ^ (z >> 30)) * _M1
    z = (z ^ (z >> 27)) * _M2
    z = z ^ (z >> 31)
    return (z >> 32).to(tl.uint32) | 1


@triton.jit
def xorshift32(state):
    """Marsaglia's xorshift on nonzero uint32's."""
    state = state ^ (state << 13)
    state = state ^ (state >> 17)
    return state ^ (state << 5)
