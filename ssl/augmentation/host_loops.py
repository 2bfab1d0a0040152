"""Compiler options for the loops of the host views, so that they are vectorized."""

from numba import njit
from numba.core.compiler import Compiler


class _NoAliasCompiler(Compiler):
    """Promises that the arrays of a function do not overlap where it writes.

    numba does so for its own parallel loops. Without it, no loop with indexed reads is vectorized.
    """

    def define_pipelines(self) -> list:
        self.state.flags.noalias = True
        return super().define_pipelines()


# The kernels own all arrays; reference counts of their slices would take longer than a row of 32 pixels.
_OPTIONS = {"error_model": "numpy", "pipeline_class": _NoAliasCompiler, "_nrt": False}

#: For functions of kernels: sums may be reordered (in the same way at every call) and products fused; no value is NaN.
host_loop = njit(fastmath={"contract", "reassoc", "nsz", "nnan"}, **_OPTIONS)
#: For code that must be rounded as written (explicit, since numba passes the options of a caller down).
exact_loop = njit(fastmath=False, **_OPTIONS)
