"""Base class of all streams: index checks, threads over slices of a batch, and pickling."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .batch import ImageBatch
from .compiling import Kernel
from .counter_rng import key
from .options import checked_integer
from .threads import Threads


def checked_indices(indices: ArrayLike) -> NDArray[np.int64]:
    """Return `indices` as int64[N] if they are a one-dimensional array of integers, else raise ValueError."""
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise ValueError(
            f"indices must be a one-dimensional array of integers, not {indices.dtype} of shape {list(indices.shape)}"
        )
    return np.ascontiguousarray(indices, np.int64)


class Stream(ABC):
    """An endless, random-access sequence of synthetic images: sample `index` is a function of (stream, seed, index).

    A generator is a subclass with a `name`, keyword-only arguments, and `_render`. `num_classes` is None without classes.
    """

    name: ClassVar[str]
    kernels: ClassVar[tuple[Kernel, ...]] = ()  #: What its first batch compiles, if that is not cached.
    num_classes: int | None = None

    def __init__(self, size: int, seed: int, threads: int) -> None:
        self.size = checked_integer("size", size, 8, 2048)
        self.seed = checked_integer("seed", seed)
        self.threads = checked_integer("threads", threads, 1, 1024)
        #: All draws of a generator derive from this key (see `counter_rng`), so two generators never share random numbers.
        self.stream_key = np.uint64(key(self.name, self.seed))
        self._threads = Threads(self.threads, self.name)

    def batch(self, indices: ArrayLike) -> ImageBatch:
        """Render the samples with these indices, int64[N] of any value; each sample is independent of the rest of the batch.

        Raises ValueError for indices that are not a one-dimensional array of integers.
        """
        indices = checked_indices(indices)
        batch = self._empty(indices)
        if self.threads == 1 or indices.size < 2:
            self._render(indices, batch)
        else:
            parts = min(indices.size, 3 * self.threads)
            slices = list(zip(np.array_split(indices, parts), batch.split(parts), strict=True))
            self._threads.share(parts, lambda part: self._render(*slices[part]))
        return batch

    def _empty(self, indices: NDArray[np.int64]) -> ImageBatch:
        """Allocate the arrays that `_render` fills, and compute the labels: index % num_classes where there are classes."""
        images = np.empty((indices.size, self.size, self.size, 3), np.uint8)
        return ImageBatch(images, None if self.num_classes is None else indices % self.num_classes)

    @abstractmethod
    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        """Render sample indices[i] into row i of the arrays of `batch`. Called from several threads on disjoint slices."""
