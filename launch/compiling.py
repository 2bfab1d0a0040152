"""`training.compile`: compile the networks with torch.compile, after checking that it works on this machine."""

import errno
import os
import tempfile

import torch
from torch import Tensor

from wildfern.launch.errors import DISK_FAULTS, RunError
from wildfern.ssl.methods import Method


def compile_networks(method: Method, device: torch.device) -> None:
    """Compile backbone and teachers in place, at the first call of each view size.

    Names of weights stay, so checkpoints and exports are unaffected. Heads and losses (small, with collectives) and the
    all-reduces of batch normalization are not compiled. Raises RunError if torch.compile does not work here.
    """
    from torch._dynamo import trace_rules  # takes seconds to import

    check_compiler(device)
    # ZeRO stage 3 fetches weights in hooks of every module. Tracing the hooks of each would take most of the time to compile.
    trace_rules.add("deepspeed")
    for network in method.networks_to_compile():
        network.compile(dynamic=False)  # few view sizes: one specialized kernel each


def check_compiler(device: torch.device) -> None:
    """Compile one small function. Raises RunError if that fails."""
    try:
        torch.compile(_small)(torch.ones(64, device=device))
    except Exception as error:  # torch.compile passes on any error of compiler and loader
        if (fault := _disk_fault(error)) is not None:
            place = fault.filename or os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()
            raise RunError(
                f"training.compile=true: the compile cache cannot be written: {place}: {fault.strerror}. Let "
                "TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR name another folder, or set training.compile=false"
            ) from error
        needed = "Triton and a C compiler (gcc)" if device.type == "cuda" else "a C++ compiler (g++, or what CXX names)"
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(
            f"training.compile=true needs {needed}: {reason[0]}. Install it (Debian, Ubuntu: apt-get install g++), or set "
            "training.compile=false"
        ) from error


def _disk_fault(error: BaseException | None) -> OSError | None:
    """The error of a file or folder that led to this one, if there is one; not that of a missing compiler."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS | {
            errno.EACCES,
            errno.EIO,
            errno.ENOTDIR,
            errno.EEXIST,
        }:
            return error
        error = error.__cause__ or error.__context__
    return None


def _small(x: Tensor) -> Tensor:
    return torch.relu(2 * x - 1) + x.sin()
