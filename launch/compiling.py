"""`training.compile`: the networks turned into fused kernels by torch.compile, or a word at the start on what is missing."""

import torch
from torch import Tensor

from wildfern.launch.run_folder import RunError
from wildfern.ssl.methods import Method


def compile_networks(method: Method, device: torch.device) -> None:
    """Have backbone and teachers compiled, in place, at their first call: once for each size of views.

    Names of weights stay, so that checkpoints and exports do not know of it. Heads and losses, which are small and gather
    between ranks, run as before; so do the sums over ranks of batch normalization. Raises RunError where nothing can be
    compiled here.
    """
    check_compiler(device)
    for network in method.networks_to_compile():
        network.compile(dynamic=False)  # the sizes of views are few: each gets its own kernels, none a general one


def check_compiler(device: torch.device) -> None:
    """Compile one small function. Raises RunError, in the user's words, where that fails."""
    try:
        torch.compile(_small)(torch.ones(64, device=device))
    except Exception as error:  # of torch.compile: whatever the compiler, its caller or the loader of the result raises
        needed = "Triton and a C compiler (gcc)" if device.type == "cuda" else "a C++ compiler (g++, or what CXX names)"
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(
            f"training.compile=true needs {needed} that works here: {reason[0]}. Install it (on Debian and Ubuntu: apt-get "
            "install g++) or leave training.compile at false"
        ) from error


def _small(x: Tensor) -> Tensor:
    return torch.relu(2 * x - 1) + x.sin()
