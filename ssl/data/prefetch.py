"""Downloads of remote files before they are read, in background threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.copy_folder import NoCopy
from wildfern.ssl.data.remote_cache import RemoteCache
from wildfern.ssl.data.steady_file import SteadyFile

THREADS = 4


def too_small(what: str) -> str:
    """A note for a source that is read by blocks."""
    return (
        f"{what}: the files of the images that are shuffled together, and of those that follow, do not fit into cache_gb: "
        "downloads are repeated or waited for; set cache_gb to more, or buffer to less"
    )


def again_and_again(what: str) -> str:
    """A note for a source that is larger than the cache and read in random order."""
    return (
        f"{what}: the files do not fit into cache_gb: in random order they are downloaded again and again; set order: blocks, "
        "which reads a few at a time, or cache_gb to more"
    )


class Prefetch:
    """Keeps copies of the files that are needed next, as far as they fit into the cache.

    Threads and locks are left out of a pickled copy, which begins with nothing to do.
    """

    def __init__(self, cache: RemoteCache) -> None:
        self._cache = cache
        self._changed = threading.Condition()
        self._pending: deque[SteadyFile] = deque()
        self._running: set[SteadyFile] = set()
        self._threads = 0

    def __reduce__(self) -> tuple[type[Prefetch], tuple[RemoteCache]]:
        return Prefetch, (self._cache,)

    def want(self, files: Sequence[SteadyFile]) -> bool:
        """Download these in turn instead of those that were wanted before; whether all of them fit into the cache.

        Those that there are count as used now, so that others are deleted first. Errors are left to those who read the files.
        """
        fitting, left = [], self._cache.most
        for file in files:
            left -= file.size
            if left < 0:
                break
            fitting.append(file)
        missing = [file for file in fitting if not self._cache.holds(file)]
        with self._changed:
            self._pending = deque(file for file in missing if file not in self._running)
            while self._threads < min(THREADS, len(self._pending) + len(self._running)):
                self._threads += 1
                # Daemons: a command that ends does not wait for downloads.
                threading.Thread(target=self._work, name="prefetch", daemon=True).start()
        return left >= 0

    def wait(self) -> None:
        """Return when everything that is wanted was downloaded, or cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending and not self._running)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._pending:
                    self._threads -= 1
                    return
                file = self._pending.popleft()
                self._running.add(file)
            try:
                self._cache.download(file, wait=False).close()
            except (DataError, NoCopy):
                pass
            finally:
                with self._changed:
                    self._running.discard(file)
                    self._changed.notify_all()
