"""What every source of images has in common: items are numbered, and reading is a pure function of the numbers."""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

ImageArray = NDArray[np.uint8]
Split = Literal["train", "test"]


class DataError(ValueError):
    """A data source that cannot be opened or read, said in the user's words."""


class UnreadableImage(DataError):
    """One image that cannot be used; `reason` says why, without naming the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Images:
    """A batch of images: uint8[N, H, W, 3], or a list of uint8[Hi, Wi, 3] when sizes differ; int64[N] labels, -1 unknown.

    Images drawn by a GPU are a torch.uint8 tensor [N, H, W, 3] there, complete for what follows on the current stream of the
    thread that read them. `paired_images`, in the form of `pixels`, are second images of the same things, where there are any.
    """

    pixels: "ImageArray | Tensor | list[ImageArray]"
    labels: NDArray[np.int64] | None = None
    paired_images: "ImageArray | Tensor | list[ImageArray] | None" = None

    def __len__(self) -> int:
        return len(self.pixels)

    def on_host(self) -> "Images":
        """The same with numpy arrays in place of tensors; waits for what a GPU has still to draw."""
        own = np.ndarray | list | None
        pixels, paired_images = (
            p if isinstance(p, own) else p.numpy(force=True) for p in (self.pixels, self.paired_images)
        )
        return Images(pixels, self.labels, paired_images)

    def as_lists(self) -> "Images":
        """The same with lists of images, on the host, in place of arrays."""
        host = self.on_host()
        return Images(list(host.pixels), self.labels, None if host.paired_images is None else list(host.paired_images))

    @classmethod
    def gather(
        cls,
        images: list[ImageArray],
        labels: NDArray[np.int64] | None = None,
        paired_images: list[ImageArray] | None = None,
    ) -> "Images":
        """One array when all images have one shape, else the list."""
        if len({image.shape for image in (*images, *(paired_images or ()))}) == 1:
            return cls(np.stack(images), labels, None if paired_images is None else np.stack(paired_images))
        return cls(images, labels, paired_images)


class Source(ABC):
    """Numbered images. `num_items` is None for an endless source; `class_names` is None for an unlabelled one."""

    num_items: int | None = None
    class_names: list[str] | None = None

    def __init__(self) -> None:
        self._skipped: dict[str, str] = {}
        self._skipped_lock = threading.Lock()

    @property
    def fixed_size(self) -> bool:
        """Whether all images have one size, so that every batch is one array whoever else is in it."""
        return False

    @property
    def num_classes(self) -> int | None:
        return None if self.class_names is None else len(self.class_names)

    @property
    def skipped(self) -> dict[str, str]:
        """What has been found unusable so far: file (or row, or member) -> reason. A copy; safe to take at any time."""
        with self._skipped_lock:
            return dict(self._skipped)

    def skip(self, name: str, reason: str) -> None:
        """Note that `name` is unusable; the first reason stays."""
        with self._skipped_lock:
            self._skipped.setdefault(name, reason)

    @abstractmethod
    def read(self, items: ArrayLike) -> Images:
        """The images with these numbers (int64[N], each in [0, num_items)); the same numbers always give the same bytes."""
