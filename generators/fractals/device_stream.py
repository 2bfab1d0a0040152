"""Streams that render on the CPU into numpy arrays, or on a GPU into torch tensors."""

import re
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..batch import ImageBatch
from ..stream import Stream, checked_indices
from .scene_table import Scene

if TYPE_CHECKING:
    from ..triton_renderer.renderer import Renderer


def checked_gpu(device: str) -> Any:
    """The torch.device of the GPU "cuda:N", for "cuda" of the current one of this thread; None for "cpu".

    Raises ValueError for any other device, a GPU that does not exist, and missing packages (torch and triton).
    """
    if device == "cpu":
        return None
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:\d+)?", device):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    try:
        from ..triton_renderer.gpu import find_gpu
    except ImportError as error:
        raise ValueError(
            f"device={device!r} needs the packages torch and triton, and {error.name} cannot be imported ({error})"
        ) from error
    return find_gpu(device)


class DeviceStream(Stream):
    """A stream of fractal scenes with a choice of `device`.

    GPU and CPU give the same bytes: both do the same operations on the same numbers in the same order.
    """

    def __init__(self, size: int, seed: int, threads: int, device: str) -> None:
        super().__init__(size, seed, threads)
        self._start_without_gpu()
        self.device, self._gpu = device, checked_gpu(device)

    def batch(self, indices: ArrayLike) -> ImageBatch:
        """As `Stream.batch`. On a GPU, images are torch.uint8 tensors, ready for later work on the current stream of this
        thread, and labels are numpy arrays; the call does not wait for the GPU.
        """
        if self.device == "cpu":
            return super().batch(indices)
        indices = checked_indices(indices)
        content = self._content(indices)
        images = self._renderer().draw(indices, content)
        return ImageBatch(
            images[0], self._labels(indices, content), paired_images=images[1] if len(images) == 2 else None
        )

    @property
    @abstractmethod
    def scene(self) -> Scene:
        """The parameters shared by all samples."""

    @abstractmethod
    def _content(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of the fractals in each sample: int64[N, K], -1 after the last."""

    @abstractmethod
    def _labels(self, indices: NDArray[np.int64], content: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.uint8]:
        """The labels of samples with this content."""

    def _renderer(self) -> "Renderer":
        with self._lock:
            if self._on_gpu is None:
                from ..triton_renderer.renderer import Renderer

                self._on_gpu = Renderer(self.scene, self._gpu or checked_gpu(self.device), self._share_rows)
            return self._on_gpu

    def _share_rows(self, n: int, work: Callable[[int, int], None]) -> None:
        """Call work(start, stop) for consecutive parts of range(n), on the threads."""
        parts = max(1, min(n, self.threads))
        self._threads.share(parts, lambda part: work(n * part // parts, n * (part + 1) // parts))

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("_gpu", "_on_gpu", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # A copy in another process looks for its GPU at its first batch.
        self._start_without_gpu()

    def _start_without_gpu(self) -> None:
        self._gpu: Any = None
        self._on_gpu: Renderer | None = None
        self._lock = threading.Lock()
