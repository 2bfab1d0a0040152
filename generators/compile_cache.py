"""The compile cache on disk: used where only trusted users can write, and not needed.

numba's cache files are pickles with machine code: loading one runs what is in it. A disk that is full or read-only, and a cache
that is damaged, cost time only.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

from wildfern.printable import encodable, printable


def guard(cache: Any) -> None:
    """Make a cache (numba.core.caching.Cache) one that never fails.

    What it cannot load is compiled, what it cannot save is said once.
    """
    load, save, place = cache.load_overload, cache.save_overload, cache._impl.locator
    cache._cache_file = _CheckedFiles(cache.cache_path, cache._impl.filename_base, place.get_source_stamp())

    def load_overload(signature, target):
        if cache._enabled and (reason := distrusted(cache.cache_path)) is not None:
            cache.disable()
            warn(f"is not used, because loading it runs what is in it: {reason}", cache.cache_path)
        try:
            return load(signature, target)
        except Exception:  # unpickling damaged bytes can raise any exception
            return None

    def save_overload(signature, result):
        try:
            save(signature, result)
        except OSError as error:
            cache.disable()
            warn(f"cannot be written ({error.strerror or error})", cache.cache_path)

    cache.load_overload, cache.save_overload = load_overload, save_overload


class _CheckedFiles(IndexDataCacheFile):
    """Files of one function: the index names only data that is complete on the disk, which carries its own checksum."""

    def save(self, key, data):
        """Save a new entry. The index is gone in between: its old entries may name the file that is replaced."""
        try:
            overloads = self._load_index()
        except Exception:  # damaged
            overloads = {}
        if key not in overloads:
            free = map(self._data_name, range(1, len(overloads) + 2))
            overloads[key] = next(name for name in free if name not in overloads.values())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._index_path)
        self._save_data(overloads[key], data)
        self._save_index(overloads)

    @contextlib.contextmanager
    def _open_for_write(self, path):
        with super()._open_for_write(path) as file:
            if os.name == "posix":
                os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~stat.S_IWOTH)
            yield file

    def _load_index(self):
        self._check_mode(self._index_path)
        return super()._load_index()

    def _check_mode(self, path):
        if os.name == "posix" and os.path.exists(path) and os.stat(path).st_mode & stat.S_IWOTH:
            raise ValueError("every user can write to it")

    def _save_data(self, name, data):
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(content + hashlib.blake2b(content).digest())
            file.flush()
            os.fsync(file.fileno())

    def _load_data(self, name):
        self._check_mode(self._data_path(name))
        content = Path(self._data_path(name)).read_bytes()
        size = hashlib.blake2b().digest_size
        if hashlib.blake2b(content[:-size]).digest() != content[-size:]:
            raise ValueError("damaged")
        return pickle.loads(content[:-size])


@contextlib.contextmanager
def not_for_strangers() -> Iterator[None]:
    """Folders and files that this process makes inside the block are not for every user to write, even with umask 000."""
    before = os.umask(0o777)
    os.umask(before | stat.S_IWOTH)
    try:
        yield
    finally:
        os.umask(before)


def distrusted(folder: str) -> str | None:
    """Why a cache folder is not to be loaded from; None if only this user, root and who owns this package can write there."""
    if os.name != "posix":
        return None
    path = Path(os.path.realpath(folder))
    try:
        for place in (path, *path.parents):
            status = place.stat()
            shared = status.st_mode & stat.S_IWOTH and not (place != path and status.st_mode & stat.S_ISVTX)
            if shared:
                return f"every user can write to {place} (chmod o-w)"
            if place == path and status.st_uid not in trusted_users():
                return f"it belongs to another user (number {status.st_uid}), so let NUMBA_CACHE_DIR name one of yours"
    except OSError:  # there is nothing to load
        return None
    return None


def trusted_users() -> set[int]:
    """Who may write the cache: root, this user, and the owner of this package, whose code runs anyway."""
    return {0, os.geteuid(), os.stat(__file__).st_uid}


@functools.cache
def warn(what: str, folder: str) -> None:
    """Say once in this process what is wrong with the cache folder."""
    say(f"wildfern: the compile cache {folder} {what}: kernels are compiled again by each process")


def say(text: str, end: str = "\n") -> None:
    """Print to standard error, which may be closed or on a full disk."""
    with contextlib.suppress(OSError, ValueError):
        print(encodable(printable(text), getattr(sys.stderr, "encoding", None)), end=end, file=sys.stderr, flush=True)
