"""Base class of all streams: index checks, threads over slices of a batch, standardized parameters, and pickling."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .batch import ImageBatch
from .compiling import Kernel
from .counter_rng import key
from .options import checked_integer
from .threads import Threads

#: Samples, from the first, that parameters are standardized by.
STANDARD_SAMPLES = 4096


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
    `parameter_names` are those of the continuous parameters of a sample, () without any; `_parameters` computes them.
    """

    name: ClassVar[str]
    kernels: ClassVar[tuple[Kernel, ...]] = ()  #: What its first batch compiles, if that is not cached.
    num_classes: int | None = None
    parameter_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, size: int, seed: int, threads: int) -> None:
        self.size = checked_integer("size", size, 8, 2048)
        self.seed = checked_integer("seed", seed)
        self.threads = checked_integer("threads", threads, 1, 1024)
        #: All draws of a generator derive from this key (see `counter_rng`), so two generators never share random numbers.
        self.stream_key = np.uint64(key(self.name, self.seed))
        self._threads = Threads(self.threads, self.name)
        self._standard: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

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

    def parameters(self, indices: ArrayLike) -> NDArray[np.float32]:
        """The parameters that these samples are rendered with: float32[N, P], in the order of `parameter_names`.

        They are standardized to mean 0 and standard deviation 1 over the stream's first STANDARD_SAMPLES samples; one that is
        constant there is 0. A function of (stream, seed, index), like the images. Raises ValueError for a stream without
        parameters, and as `batch` does.
        """
        if not self.parameter_names:
            raise ValueError(f"the stream {self.name!r} has no parameters")
        indices = checked_indices(indices)
        if self._standard is None:
            first = self._parameters(np.arange(STANDARD_SAMPLES))
            self._standard = _mean_and_deviation(first)
        mean, deviation = self._standard
        return ((self._parameters(indices) - mean) / deviation).astype(np.float32)

    def _parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """The parameters of these samples as they are, float64[N, P]; called from several threads."""
        raise NotImplementedError(f"{type(self).__name__} names parameters, but has no _parameters(indices)")

    def _empty(self, indices: NDArray[np.int64]) -> ImageBatch:
        """Allocate the arrays that `_render` fills, and compute the labels: index % num_classes where there are classes."""
        images = np.empty((indices.size, self.size, self.size, 3), np.uint8)
        return ImageBatch(images, None if self.num_classes is None else indices % self.num_classes)

    @abstractmethod
    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        """Render sample indices[i] into row i of the arrays of `batch`. Called from several threads on disjoint slices."""


def _mean_and_deviation(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each column, summed exactly, so that every machine finds the same; the deviation of a constant column is 1."""
    mean = np.array([math.fsum(column) for column in values.T]) / len(values)
    deviation = np.sqrt(np.array([math.fsum(column) for column in ((values - mean) ** 2).T]) / len(values))
    constant = values.min(axis=0) == values.max(axis=0)
    return np.where(constant, values[0], mean), np.where(constant, 1.0, deviation)
