"""The interface of all image sources: items are numbered, and reading is a pure function of the numbers."""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.data.groups import Groups

if TYPE_CHECKING:
    from torch import Tensor

ImageArray = NDArray[np.uint8]  # [H, W, C] or [N, H, W, C]
MaskArray = NDArray[np.uint8]  # [H, W] or [N, H, W]
Split = Literal["train", "test"]
_LOCK = type(threading.Lock())


class DataError(ValueError):
    """A data source that cannot be opened or read; the message is for the user."""


class EmptySplit(DataError):
    """A data set that can be opened, but has no images in the split that was asked for."""


Fault = Literal["unreadable", "truncated", "not_an_image", "bomb"]


class UnreadableImage(DataError):
    """One unusable image; `reason` says why, without the name of the file, and `fault` which kind of fault it is."""

    def __init__(self, reason: str, fault: Fault = "unreadable") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault: Fault = fault


@dataclass(frozen=True)
class Images:
    """A batch of images with their annotations; None for annotations that the source does not have.

    - pixels: uint8[N, H, W, C], or a list of uint8[Hi, Wi, C] when sizes differ. Images drawn by a GPU are a torch.uint8 tensor
      [N, H, W, C] there, complete for what follows on the current stream of the thread that read them.
    - labels: int64[N], -1 for an unlabeled image; or multi-hot uint8[N, K], a 1 for each class of the image.
    - paired_images: the second image of each positive pair, in the form of `pixels`.
    - masks: uint8[N, H, W], or a list of uint8[Hi, Wi], one value per pixel of `pixels`.
    - regions: in the form of `masks`, 1 inside the field of view, outside of which masks say nothing; None: everywhere.
    - masked: bool[N], whether an image's source has masks; `Mixture` sets it if any source has.
    - source: int64[N], which entry of `data` each image came from; `Mixture` sets it.
    - items: int64[N], the number of each image among those of all finite sources, -1 for endless ones; `Mixture` sets it.
    - parameters: float32[N, P], the continuous parameters that each image was rendered with, standardized, or the numbers
      of its `target_columns` as they are in the table; NaN if it has none.
    """

    pixels: "ImageArray | Tensor | list[ImageArray]"
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None
    paired_images: "ImageArray | Tensor | list[ImageArray] | None" = None
    masks: "MaskArray | Tensor | list[MaskArray] | None" = None
    regions: "MaskArray | Tensor | list[MaskArray] | None" = field(default=None, kw_only=True)
    masked: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    source: NDArray[np.int64] | None = None
    items: NDArray[np.int64] | None = None
    parameters: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def on_host(self) -> "Images":
        """The same with numpy arrays instead of tensors; waits until a GPU has drawn them."""
        tensors = {
            name: value.numpy(force=True)
            for name in ("pixels", "paired_images", "masks", "regions")
            if not isinstance(value := getattr(self, name), np.ndarray | list | None)
        }
        return replace(self, **tensors)

    def as_lists(self) -> "Images":
        """The same with lists of images and masks instead of arrays, on the host."""
        host = self.on_host()
        lists = {
            name: list(value)
            for name in ("pixels", "paired_images", "masks", "regions")
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


class SourceFile(NamedTuple):
    """A file that images are read from: its name relative to the source, its bytes, and its path."""

    name: str
    size: int
    path: str


def listed_files(paths: Sequence[str | Path]) -> Iterator[SourceFile]:
    """These files, named relative to the folder that holds all of them."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    for path in paths:
        yield SourceFile(os.path.relpath(path, folder), os.path.getsize(path), str(path))


class Source(ABC):
    """A numbered set of images. `num_items` is None for an endless source, `class_names` is None for an unlabeled one.

    `channels` is C of its images uint8[H, W, C]. `split_words` says which images these are ("folder valid").
    `parameter_names`: of the columns of `Images.parameters`, which `read` returns only with `reads_parameters`; () without any.
    `groups`: of all items, by each column of metadata that was asked for. An image that was found unreadable is of unknown group,
    as `read` gives another one in its place.
    """

    num_items: int | None = None
    class_names: list[str] | None = None
    channels: int = 3
    split_words: str = ""
    parameter_names: tuple[str, ...] = ()
    groups: tuple[Groups, ...] = ()
    reads_parameters: bool = False  # True: the method needs them
    reads_by_blocks: int = 0  # images that `BlockOrder` shuffles together, if items are read in its order

    reads_labels: bool = (
        True  # False: nothing needs labels, and `read` may leave out those that would be read from files
    )

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._skipped: dict[str, str] = {}
        self._skipped_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Locks are left out: a process that gets a copy makes its own."""
        return {name: None if isinstance(value, _LOCK) else value for name, value in self.__dict__.items()} | {
            "_locks": [name for name, value in self.__dict__.items() if isinstance(value, _LOCK)]
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        locks = state.pop("_locks")
        self.__dict__.update(state, **{name: threading.Lock() for name in locks})

    @property
    def fixed_size(self) -> bool:
        """Whether all images have one size, so that every batch is one array, whichever images are in it."""
        return False

    @property
    def blocks(self) -> NDArray[np.int64] | None:
        """The first item of each part that is stored together (a shard, a row group), and num_items: int64[blocks + 1].

        None for a source whose items are stored one by one, or are computed.
        """
        return None

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

    def files(self) -> Iterable[SourceFile] | None:
        """The files of the images, in a fixed order; None for a source that is not made of files."""
        return None

    @property
    def notes(self) -> list[str]:
        """Messages for the user about how the images were found and read, in order; a copy."""
        with self._skipped_lock:
            return list(self._notes)

    def note(self, message: str) -> None:
        """Tell the user something about these images, for example what was passed over; repeated messages are kept once."""
        printable = message.encode("utf-8", "backslashreplace").decode()  # file names may be no UTF-8
        with self._skipped_lock:
            self._notes.setdefault(printable)

    def prepare(self) -> None:  # noqa: B027, most sources need nothing
        """Do what reading in the order of training needs first, and takes long, such as a local copy; does nothing by default."""

    def expect(self, items: ArrayLike) -> None:  # noqa: B027, most sources need nothing
        """Fetch what these items are stored in, which are read soon in this order; does nothing by default."""

    @abstractmethod
    def read(self, items: ArrayLike) -> Images:
        """The images with these numbers (int64[N], each in [0, num_items)); the same numbers always give the same bytes.

        Labels, masks and paired images are optional: a source returns each of them for all of its images or for none. Masks have
        the height and width of their images. Leave `Images.source` and `items` at None. Called from several threads at once.
        """


class NoImages(Source):
    """A split without images, of `channels` channels, for what reads the other split alone; `why` there are none."""

    num_items = 0

    def __init__(self, channels: int, why: str) -> None:
        super().__init__()
        self.channels, self.split_words, self.why = channels, "no images", why

    def read(self, items: ArrayLike) -> Images:
        raise IndexError(f"this split has no images: {self.why}")
