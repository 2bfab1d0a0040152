"""The interface of all image sources: items are numbered, and reading is a pure function of the numbers."""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

ImageArray = NDArray[np.uint8]  # [H, W, C] or [N, H, W, C]
MaskArray = NDArray[np.uint8]  # [H, W] or [N, H, W]
Split = Literal["train", "test"]


class DataError(ValueError):
    """A data source that cannot be opened or read; the message is for the user."""


class UnreadableImage(DataError):
    """One unusable image; `reason` says why, without the name of the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Images:
    """A batch of images with their annotations; None for annotations that the source does not have.

    - pixels: uint8[N, H, W, C], or a list of uint8[Hi, Wi, C] when sizes differ. Images drawn by a GPU are a torch.uint8 tensor
      [N, H, W, C] there, complete for what follows on the current stream of the thread that read them.
    - labels: int64[N], -1 for an unlabeled image; or multi-hot uint8[N, K], a 1 for each class of the image.
    - paired_images: the second image of each positive pair, in the form of `pixels`.
    - masks: uint8[N, H, W], or a list of uint8[Hi, Wi], one value per pixel of `pixels`.
    - source: int64[N], which entry of `data` each image came from; `Mixture` sets it.
    """

    pixels: "ImageArray | Tensor | list[ImageArray]"
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None
    paired_images: "ImageArray | Tensor | list[ImageArray] | None" = None
    masks: "MaskArray | Tensor | list[MaskArray] | None" = None
    source: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def on_host(self) -> "Images":
        """The same with numpy arrays instead of tensors; waits until a GPU has drawn them."""
        tensors = {
            name: value.numpy(force=True)
            for name in ("pixels", "paired_images", "masks")
            if not isinstance(value := getattr(self, name), np.ndarray | list | None)
        }
        return replace(self, **tensors)

    def as_lists(self) -> "Images":
        """The same with lists of images and masks instead of arrays, on the host."""
        host = self.on_host()
        lists = {
            name: list(value)
            for name in ("pixels", "paired_images", "masks")
            if (value := getattr(host, name)) is not None
        }
        return replace(host, **lists)

    @classmethod
    def gather(
        cls,
        images: list[ImageArray],
        labels: NDArray[np.int64] | NDArray[np.uint8] | None = None,
        paired_images: list[ImageArray] | None = None,
        masks: list[MaskArray] | None = None,
        source: NDArray[np.int64] | None = None,
    ) -> "Images":
        """Arrays if all images have one shape, else lists."""
        if len({image.shape for image in (*images, *(paired_images or ()))}) != 1:
            return cls(images, labels, paired_images, masks, source)
        stacked = (None if part is None else np.stack(part) for part in (paired_images, masks))
        return cls(np.stack(images), labels, *stacked, source)


class Source(ABC):
    """A numbered set of images. `num_items` is None for an endless source, `class_names` is None for an unlabeled one.

    `channels` is C of its images uint8[H, W, C]. `split_words` says which images these are ("folder valid").
    """

    num_items: int | None = None
    class_names: list[str] | None = None
    channels: int = 3
    split_words: str = ""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._skipped: dict[str, str] = {}
        self._skipped_lock = threading.Lock()

    @property
    def fixed_size(self) -> bool:
        """Whether all images have one size, so that every batch is one array, whichever images are in it."""
        return False

    @property
    def num_classes(self) -> int | None:
        return None if self.class_names is None else len(self.class_names)

    @property
    def skipped(self) -> dict[str, str]:
        """The unusable items found so far: file (or row, or member) -> reason. A copy; can be read at any time."""
        with self._skipped_lock:
            return dict(self._skipped)

    def skip(self, name: str, reason: str) -> None:
        """Record that `name` is unusable; the first reason is kept."""
        with self._skipped_lock:
            self._skipped.setdefault(name, reason)

    @property
    def notes(self) -> list[str]:
        """Messages for the user about how the images were found and read, in order; a copy."""
        with self._skipped_lock:
            return list(self._notes)

    def note(self, message: str) -> None:
        """Tell the user something about these images, for example what was passed over; repeated messages are kept once."""
        with self._skipped_lock:
            self._notes.setdefault(message)

    @abstractmethod
    def read(self, items: ArrayLike) -> Images:
        """The images with these numbers (int64[N], each in [0, num_items)); the same numbers always give the same bytes.

        Labels, masks and paired images are optional: a source returns each of them for all of its images or for none. Masks have
        the height and width of their images. Leave `Images.source` at None. Called from several threads at once.
        """
