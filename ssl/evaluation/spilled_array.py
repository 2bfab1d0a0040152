"""Arrays that grow part by part: in memory while a budget lasts, and in a temporary file that is mapped into memory beyond it."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GIB = 2**30


class MemoryBudget:
    """How many bytes may be kept in memory: `limit` altogether, of which `used` are taken."""

    def __init__(self, limit: int = 4 * GIB) -> None:
        if limit < 0:
            raise ValueError(f"a memory budget is a number of bytes, at least 0, got {limit}")
        self.limit, self.used = limit, 0

    def take(self, size: int) -> bool:
        """Whether `size` more bytes fit; if so, they are taken."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """These bytes are free again."""
        self.used -= size


class SpilledArray:
    """An array [N, …] to which rows are appended, any number at a time. In a `folder` it is a file from the start."""

    def __init__(self, budget: MemoryBudget, folder: Path | None = None) -> None:
        self.budget = budget
        self.rows = 0
        self._parts: list[NDArray[Any]] = []
        self._taken = 0
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self._file: Any = None
        self.folder: Path | None = None
        if folder is not None:
            self._open(folder)

    @property
    def path(self) -> Path | None:
        """The file, if there is one."""
        return None if self.folder is None else self.folder / "rows"

    def append(self, part: NDArray[Any]) -> None:
        """Add rows: an array [n, …] like those before."""
        self._shape, self._dtype = part.shape[1:], part.dtype
        self.rows += len(part)
        if self._file is None and self.budget.take(part.nbytes):
            self._taken += part.nbytes
            self._parts.append(part)
            return
        if self._file is None:
            self._open(Path(tempfile.mkdtemp(prefix="wildfern_")))
            for earlier in self._parts:
                self._file.write(np.ascontiguousarray(earlier).data)
            self._free()
        self._file.write(np.ascontiguousarray(part).data)

    def finish(self) -> NDArray[Any]:
        """All rows. A temporary file is removed once the array is not used any more."""
        if self._file is None:
            whole = np.concatenate(self._parts) if self._parts else np.empty(0, self._dtype)
            self._parts = []
            weakref.finalize(whole, self.budget.give, self._taken)
            return whole
        self.close()
        assert self.path is not None
        whole = mapped(self.path, self._dtype, (self.rows, *self._shape))
        weakref.finalize(whole, shutil.rmtree, self.folder, True)
        return whole

    def close(self) -> None:
        """Write what is left to the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Give up: free the memory and remove the file."""
        self._free()
        self.close()
        if self.folder is not None:
            shutil.rmtree(str(self.folder), ignore_errors=True)

    def _open(self, folder: Path) -> None:
        self.folder = folder
        self._file = (folder / "rows").open("wb")

    def _free(self) -> None:
        self.budget.give(self._taken)
        self._parts, self._taken = [], 0


def mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The rows of a file, read when they are used; changes stay in memory. Raises ValueError for another size of the file."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if path.stat().st_size != size or not size:
        raise ValueError(f"{path} does not have the {size} bytes of {list(shape)} numbers")
    return np.memmap(path, dtype, "c", shape=shape)
