"""Compiled kernels: compiled once per machine by one process at a time, and cached on disk."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from numba import njit
from numba.core import event

from wildfern.files import open_regular
from wildfern.generators.compile_cache import guard, not_for_strangers, say

try:
    import fcntl
except ImportError:  # not on Windows: processes that start together compile in parallel there
    fcntl = None


def stamp_of_sources(file: str) -> int:
    """A number that changes with any source file here or in the folder of `file`.

    Kernels call functions from these folders, but numba's cache checks only the file of the cached function.
    """
    digest = hashlib.blake2b(digest_size=7)
    for folder in sorted({Path(__file__).parent, Path(file).parent}):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return int.from_bytes(digest.digest(), "little")


class Kernel:
    """A function compiled by numba that releases the GIL; compiled at its first call or loaded from the cache.

    The compiling process reports it on standard error; other processes wait and then load the result from the cache.
    """

    def __init__(self, what: str, make: Callable[[int], Callable]) -> None:
        self._what, self._lock, self._ready = what, threading.Lock(), False
        function = make(stamp_of_sources(make.__code__.co_filename))
        try:
            with not_for_strangers():  # makes the folder
                self._dispatcher = njit(nogil=True, cache=True)(function)
            guard(self._dispatcher._cache)
        except (RuntimeError, OSError):  # no writable cache folder
            self._dispatcher = njit(nogil=True)(function)
        self.__doc__ = function.__doc__

    def __call__(self, *arguments):
        if self._ready:
            return self._dispatcher(*arguments)
        with self._lock, _one_process(self._dispatcher), _announced(self._what, self._dispatcher):
            result = self._dispatcher(*arguments)
            self._ready = True
        return result


def kernel(what: str) -> Callable[[Callable[[int], Callable]], Kernel]:
    """Turn a function that returns a kernel's Python function into the `Kernel`; `what` names it in progress messages.

    The decorated function gets a number that changes with the sources; the kernel must refer to it (`_ = sources`), because
    numba's cache key includes closure values. Arguments must have the same types at every call.
    """
    return lambda make: Kernel(what, make)


@contextlib.contextmanager
def _one_process(dispatcher) -> Iterator[None]:
    """Lock the cache folder, if there is one and the file system supports locks."""
    with contextlib.ExitStack() as stack:
        folder = dispatcher.stats.cache_path
        if fcntl is not None and folder is not None and dispatcher._cache._enabled:
            with contextlib.suppress(OSError):
                Path(folder).mkdir(parents=True, exist_ok=True)
                file = os.fdopen(open_regular(Path(folder) / "wildfern.lock", os.O_RDWR | os.O_CREAT))
                fcntl.flock(stack.enter_context(file), fcntl.LOCK_EX)
        yield


class _Announcer(event.Listener):
    def __init__(self, what: str, dispatcher) -> None:
        self._what, self._dispatcher, self._began = what, dispatcher, 0.0

    def on_start(self, event: event.Event) -> None:
        if event.data["dispatcher"] is self._dispatcher:
            self._began = time.perf_counter()
            cache = self._dispatcher._cache
            kept = "not cached: no writable cache folder"
            if cache.cache_path is not None:
                kept = "cached for later runs" if cache._enabled else "not cached"
            say(f"wildfern: compiling {self._what} for this machine ({kept}) …", end="")

    def on_end(self, event: event.Event) -> None:
        if event.data["dispatcher"] is self._dispatcher:
            say(f" {time.perf_counter() - self._began:.0f} s")


@contextlib.contextmanager
def _announced(what: str, dispatcher) -> Iterator[None]:
    listener = _Announcer(what, dispatcher)
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
