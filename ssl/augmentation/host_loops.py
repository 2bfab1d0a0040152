"""How the loops of the host's views are compiled, so that they turn into vector instructions."""

from numba import njit
from numba.core.compiler import Compiler


class _Apart(Compiler):
    """Arrays handed to a function do not overlap where it writes.

    numba says so of its own parallel loops. Else no loop that reads through a table of indices becomes vector instructions.
    """

    def define_pipelines(self) -> list:
        self.state.flags.noalias = True
        return super().define_pipelines()


# Kernels own all arrays: counting the references to slices of them would take longer than a row of 32 pixels.
_ours = {"error_model": "numpy", "pipeline_class": _Apart, "_nrt": False}

#: For functions of kernels: sums may be reordered (the same way at every call) and products fused; nothing is NaN.
host_loop = njit(fastmath={"contract", "reassoc", "nsz", "nnan"}, **_ours)
#: For what is to be rounded as it is written (said, for numba hands the options of a caller down).
exact_loop = njit(fastmath=False, **_ours)
