"""Compiled kernels: compiled once per machine by one process at a time, and cached on disk."""

import contextlib
import gc
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from numba import njit
from numba.core import event

from wildfern.files import open_regular
from wildfern.generators.compile_cache import distrusted, guard, not_for_strangers, say
from wildfern.generators.linked_compiling import linked_inner_functions

try:
    import fcntl
except ImportError:  # not on Windows: processes that start together compile in parallel there
    fcntl = None


#: Seconds between two reports of a long compilation.
TICK_SECONDS = 4.0
#: Kernels that another process compiles for this one, by what they are called in messages.
compiled_elsewhere: set[str] = set()


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
        self.what, self._lock, self._ready = what, threading.Lock(), False
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
        with self._lock, _one_process(self._dispatcher, self.what), _announced(self.what, self._dispatcher):
            with linked_inner_functions(self._dispatcher), without_garbage_collection():
                self._dispatcher.compile(tuple(map(self._dispatcher.typeof_pyval, arguments)))
            self._ready = True
        return self._dispatcher(*arguments)

    def to_be_cached(self) -> bool:
        """Whether another process could compile this kernel for this one: there is a cache, and it lacks the kernel."""
        cache = self._dispatcher._cache
        folder = self._dispatcher.stats.cache_path
        if self._ready or folder is None or not cache._enabled or distrusted(folder) is not None:
            return False
        _, *build = cache._index_key(None, self._dispatcher.targetctx.codegen())  # processor and sources
        try:
            return all(kept != build for _, *kept in cache._cache_file._load_index())
        except Exception:  # unpickling damaged bytes can raise any exception
            return True


def kernel(what: str) -> Callable[[Callable[[int], Callable]], Kernel]:
    """Turn a function that returns a kernel's Python function into the `Kernel`; `what` names it in progress messages.

    The decorated function gets a number that changes with the sources; the kernel must refer to it (`_ = sources`), because
    numba's cache key includes closure values. Arguments must have the same types at every call.
    """
    return lambda make: Kernel(what, make)


@contextlib.contextmanager
def _one_process(dispatcher, what: str) -> Iterator[None]:
    """Lock the cache folder, if there is one and the file system supports locks."""
    with contextlib.ExitStack() as stack:
        folder = dispatcher.stats.cache_path
        if fcntl is not None and folder is not None and dispatcher._cache._enabled:
            with contextlib.suppress(OSError):
                Path(folder).mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(
                    os.fdopen(open_regular(Path(folder) / "wildfern.lock", os.O_RDWR | os.O_CREAT))
                )
                if what in compiled_elsewhere:
                    _wait_for_lock(file, what)
                else:
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait_for_lock(file: IO, what: str) -> None:
    """Lock a file, reporting on standard error how long that takes if it takes long."""
    clock = _Clock()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.02)
        clock.tick(f"wildfern: waiting until {what} are compiled …")
    clock.end()


class _Clock:
    """Reports a long operation: seconds are appended to one line, every `TICK_SECONDS`."""

    def __init__(self) -> None:
        self._began = self._said = time.perf_counter()
        self._line = False

    def start(self, text: str) -> None:
        say(text, end="")
        self._line = True

    def tick(self, text: str = "") -> None:
        """Called often; `text` starts the line if there is none yet."""
        now = time.perf_counter()
        if now - self._said > TICK_SECONDS:
            self._said = now
            say(f"{'' if self._line else text} {now - self._began:.0f} s …", end="")
            self._line = True

    def end(self) -> None:
        if self._line:
            say(f" {time.perf_counter() - self._began:.0f} s")


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Compiling makes millions of objects that stay: looking through them for garbage takes an eighth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Announcer(event.Listener):
    """Reports that a kernel is compiled, and how long that takes."""

    def __init__(self, what: str, dispatcher) -> None:
        self._what, self._dispatcher = what, dispatcher
        self._clock: _Clock | None = None

    def on_start(self, event: event.Event) -> None:
        if event.data["dispatcher"] is self._dispatcher:
            cache = self._dispatcher._cache
            kept = "not cached: no writable cache folder"
            if cache.cache_path is not None:
                kept = "cached for later runs" if cache._enabled else "not cached"
            self._clock = _Clock()
            self._clock.start(f"wildfern: compiling {self._what} for this machine ({kept}) …")

    def on_end(self, event: event.Event) -> None:
        if self._clock is not None:
            if event.data["dispatcher"] is self._dispatcher:
                self._clock.end()
            else:  # a function of the kernel
                self._clock.tick()


@contextlib.contextmanager
def _announced(what: str, dispatcher) -> Iterator[None]:
    listener = _Announcer(what, dispatcher)
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
