"""Which files of a folder can be used, as far as is seen without reading, and their sizes."""

import os
import stat

import numpy as np
from numpy.typing import NDArray


def usable_files(
    folder: str, names: list[str], at_once: bool
) -> tuple[list[str], NDArray[np.int64], list[tuple[str, str]]]:
    """The names of regular files that are not empty, their bytes int64[N], and the other names with what is wrong.

    Links are followed. `at_once`: a loop may be compiled to measure them, as there are many files.
    """
    handle = _opened(folder)
    try:
        if at_once and handle is not None and (sizes := _sizes(handle, names)) is not None and sizes.min(initial=1) > 0:
            return names, sizes, []
        found, sizes_found, faults = [], [], []
        for name in names:
            try:
                status = os.stat(os.path.join(folder, name)) if handle is None else os.stat(name, dir_fd=handle)
            except OSError as error:
                faults.append((name, _reason(error)))
                continue
            if (fault := _unusable(status)) is None:
                found.append(name)
                sizes_found.append(status.st_size)
            else:
                faults.append((name, fault))
        return found, np.array(sizes_found, np.int64), faults
    finally:
        if handle is not None:
            os.close(handle)


def fault_of(path: str) -> str | None:
    """What is wrong with the file at this path; None if it can be used."""
    try:
        return _unusable(os.stat(path))
    except OSError as error:
        return _reason(error)


def _opened(folder: str) -> int | None:
    """A handle of the folder, in which a name is found sooner than by its path; None where there is none."""
    if os.stat not in os.supports_dir_fd:
        return None
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # paths may still be found: each has its own fault
        return None


def _sizes(handle: int, names: list[str]) -> NDArray[np.int64] | None:
    from wildfern.ssl.data.file_sizes import file_sizes, has_statx  # a kernel takes time to import

    return file_sizes(handle, names) if has_statx() else None


def _unusable(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait forever
        return "not a regular file"
    return None if status.st_size else "empty file"


def _reason(error: OSError) -> str:
    return f"cannot be opened: {error.strerror}"
