"""Compile the kernels of a run in processes of their own, while this one still imports torch and builds the network.

`python -m wildfern.launch.compile_ahead KERNELS` is such a process; KERNELS is a generator or `views`. It writes the compile
cache, from which the process that needs the kernels loads them.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from types import ModuleType

from wildfern.recipes import likely_sources

VIEWS = "views"


def compile_ahead(recipe: str | os.PathLike[str], overrides: Sequence[str]) -> None:
    """Start to compile the kernels of the generators that a recipe likely uses, and of views, if the cache lacks the former."""
    from wildfern.generators import STREAMS, compiling

    if cpu_cores() < 2 or compiling.fcntl is None:  # without locks this process would not wait for the others
        return
    missing = {}
    for name in likely_sources(recipe, overrides):
        kernels = STREAMS[name].kernels if name in STREAMS else ()
        if any(kernel.to_be_cached() for kernel in kernels):
            missing[name] = [kernel.what for kernel in kernels]
    if not missing:
        return
    missing[VIEWS] = [VIEWS]
    for name, kernels in missing.items():
        command = [sys.executable, "-m", "wildfern.launch.compile_ahead", name]
        nothing = subprocess.DEVNULL
        try:
            # In a session of its own: Ctrl-C here does not throw the compiled code away.
            subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        except OSError:  # no process to be had: this one compiles
            return
        compiling.compiled_elsewhere.update(kernels)
    what = " and ".join(chain.from_iterable(missing.values()))
    compiling.say(f"wildfern: compiling {what} for this machine (cached for later runs)")


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_generator(name: str) -> None:
    """Compile what a generator needs, by rendering one image."""
    import numpy as np

    from wildfern.generators import make_stream

    make_stream(name, size=32).batch(np.arange(1))


def compile_views() -> None:
    """Compile the views' kernel, without the rest of its package, which imports torch."""
    for package in ("wildfern.ssl", "wildfern.ssl.augmentation"):
        spec = find_spec(package)
        module = ModuleType(package)
        module.__path__ = list(spec.submodule_search_locations or []) if spec else []
        sys.modules[package] = module
    import_module("wildfern.ssl.augmentation.host_kernel").render_example()


if __name__ == "__main__":
    if sys.argv[1] == VIEWS:
        compile_views()
    else:
        compile_generator(sys.argv[1])
