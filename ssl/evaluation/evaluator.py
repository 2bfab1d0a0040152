"""The interface of an evaluator: from the train and test split of a dataset to named scores with intervals.

An evaluator is one file: a subclass of `Evaluator` whose keyword-only, typed constructor arguments are its recipe keys,
registered by `@register("evaluator", NAME)`.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.tracking.progress import SILENT, Progress

Needs = Literal["features", "tokens", "maps", "images", "masks"]
T = TypeVar("T")


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each of n test images, in the order of the split.

    `labels` int64[n]; `ranked` int64[n, ≥ 1]: guesses, best first (-1: none). A classifier with probabilities also gives
    `logits` float32[n, C] over `classes` int64[C], and the `temperature` that divides them, chosen on held-out train images.
    """

    labels: Tensor
    ranked: Tensor
    logits: Tensor | None = None
    classes: Tensor | None = None
    temperature: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> Tensor:
        """Whether the first guess is right, bool[n]."""
        return self.ranked[:, 0] == self.labels.to(self.ranked.device)


@dataclass(frozen=True)
class SegmentationDetails:
    """What a report shows of a segmentation of n test images.

    `counts` int64[2, 1001]: pixels of masks, and others, of all images, with at least each of `pixel_ranking.CURVE_THRESHOLDS`.
    `threshold`: the one that was chosen without test, if any. Of some images `items` int64[k] of the source, `dice` float32[k] at
    that threshold, else at 0.5, and `overlays`: JPEG files that show what was found and missed there.
    """

    counts: NDArray[np.int64]
    threshold: float | None
    items: NDArray[np.int64]
    dice: NDArray[np.float32]
    overlays: tuple[bytes, ...]


@dataclass(frozen=True)
class Score:
    """One number of an evaluation; `low` and `high` are its interval, if known, and `detail` describes the interval.

    `n` is the number of test images that were counted. A `share` is in [0, 1] and is shown in percent.
    `per_image` float32[n]: what each test image contributes, if `value` is their mean; the same images in the same order for
    each backbone give paired differences. `per_draw`: the values of which it is the mean, of draws of train images that are the
    same for each backbone; differences are then paired over these. The main score of a classifier has its `predictions`,
    that of a segmentation its details, `segmentation`.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    detail: str = ""
    share: bool = True
    per_image: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    predictions: Predictions | None = field(default=None, compare=False, repr=False)
    segmentation: SegmentationDetails | None = field(default=None, compare=False, repr=False)
    per_draw: tuple[float, ...] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Features:
    """Features `x` float32[N, D] and labels `y`, on one device; `x` may be mapped from a file, larger than memory.

    `y` is int64[N] (-1: unknown), or multi-hot uint8[N, K] with a 1 for each class of the image; a row of zeros is an image
    of none of the classes, not one without a label. For an evaluator of `targets`, `y` is float32[N, P] (or float32[N]), and
    `class_names` are those of its columns. `device` is where to compute with parts of `x` (None: where they are).
    """

    x: Tensor
    y: Tensor
    class_names: tuple[str, ...] | None = field(default=None, compare=False)
    device: torch.device | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.ndim not in (1, 2) or self.y.shape[:1] != self.x.shape[:1]:
            shapes = f"{tuple(self.x.shape)} and {tuple(self.y.shape)}"
            raise ValueError(f"features are x[N, D] and y[N] (or y[N, K], multi-hot), got {shapes}")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Features":
        return Features(self.x[index], self.y[index], self.class_names, self.device)

    @property
    def computes_on(self) -> torch.device:
        """The device to compute on."""
        return self.x.device if self.device is None else self.device

    @property
    def multi_label(self) -> bool:
        """Whether `y` is multi-hot."""
        return self.y.ndim == 2 and not self.y.is_floating_point()

    @staticmethod
    def concatenated(parts: "list[Features]") -> "Features":
        x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
        return Features(x, y, parts[0].class_names)


@dataclass(frozen=True)
class LabeledImages:
    """All images of a split, uint8[N, S, S, C], preprocessed but not normalized, and labels as of `Features`."""

    pixels: NDArray[np.uint8]
    y: NDArray[np.int64] | NDArray[np.uint8]
    backbone: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def multi_label(self) -> bool:
        """Whether `y` is multi-hot."""
        return self.y.ndim == 2


@dataclass(frozen=True)
class Chunk:
    """n images of a stream: `x` is list[float32[n, C, H, W]] (maps) or `Tokens`; labels as of `Features`.

    `masks` uint8[n, S, S] are cropped and resized like their images; None if the source has none.
    """

    x: Any
    y: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class ChunkStream:
    """Tokens or maps of a split, computed again in each iteration: they may be too large to keep."""

    open: Callable[[], Iterator[Chunk]]
    class_names: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Chunk]:
        return self.open()


class MaskedImage(NamedTuple):
    """An image as its source has it, uint8[H, W, C], with its mask and field of view, bool[H, W]; `region` None: everywhere."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    region: NDArray[np.bool_] | None
    item: int


@dataclass(frozen=True)
class MaskedImages:
    """Images of a split with their masks, whole and in their own size, read again in each iteration: `count` of them."""

    open: Callable[[], Iterator[MaskedImage]]
    count: int
    backbone: nn.Module
    preprocessing: Preprocessing

    def __iter__(self) -> Iterator[MaskedImage]:
        return self.open()

    def __len__(self) -> int:
        return self.count


class HeldOut(Generic[T]):
    """The test split. It can be read once, after all choices were made on train; a second read raises RuntimeError."""

    def __init__(self, data: T) -> None:
        self._data: T | None = data
        self.class_names: tuple[str, ...] | None = getattr(data, "class_names", None)

    def read(self) -> T:
        """The data; of a stream or `MaskedImages` an iterator for one pass. ValueError for a split without images."""
        if self._data is None:
            raise RuntimeError("the test split was read before: choose everything on train, then read test once")
        data, self._data = self._data, None
        if isinstance(data, Sized):
            check_test(data)
        return iter(data) if isinstance(data, ChunkStream | MaskedImages) else data  # type: ignore[return-value]


def check_test(test: Sized) -> None:
    """Raises ValueError for a test split without images: nothing can be scored on it."""
    if not len(test):
        raise ValueError("the test split has no images to score")


def check_single_label(function: str, evaluator: str, *labels: Any) -> None:
    """Raises ValueError for multi-hot labels, given to a function that is for one label per image."""
    if any(one.ndim != 1 for one in labels):
        raise ValueError(
            f"{function}() is for one label per image, and these are multi-hot: use the evaluator {evaluator}"
        )


class Evaluator(ABC):
    """Evaluates a backbone on labeled images or masks, by its features, tokens, maps or by the images themselves.

    `needs` decides what `train` and `test` are: "features" → `Features`; "tokens" and "maps" → `ChunkStream`;
    "images" → `LabeledImages`; "masks" → `MaskedImages`; `test` is a `HeldOut` of the same. `needs_labels` False: images without
    a label (-1) are kept.
    An evaluator that needs labels gets multi-hot ones only if it declares `multi_label`; otherwise the data set is refused.
    `targets`: the labels are numbers, `Images.parameters` float32[N, P]; images without one of them (NaN) are left out.
    With `needs` "features", an attribute `layers` asks for those of the last blocks or stages (`LastBlocks`).
    What takes long may tell how far it is: `self.progress.count(done, total, "images")`, `self.progress.detail("epoch 2 of 10")`.
    """

    needs: ClassVar[Needs] = "features"
    needs_labels: ClassVar[bool] = True
    multi_label: ClassVar[bool] = False
    targets: ClassVar[bool] = False
    layers: int | None = (
        None  # of the features: of the last blocks or stages, concatenated; None: the backbone's output
    )
    named: ClassVar[tuple[str, ...]] = ()  # arguments that are part of the protocol's name even at their defaults
    progress: Progress = SILENT  # set by the caller that displays it

    @abstractmethod
    def __call__(self, train: Any, test: HeldOut[Any]) -> list[Score]:
        """The scores, the main one first."""

    def check_network(self, backbone: nn.Module, size: int | None) -> None:  # noqa: B027  (a hook, not abstract)
        """Raise ValueError if the evaluator cannot take this backbone, or images of `size` pixels (None: as they are).

        Called before training, and before an evaluation reads images. By default all are taken.
        """

    def describe(self) -> str:
        """A sentence about this evaluator for tables and reports; by default the docstring's first line."""
        return (inspect.getdoc(self) or type(self).__name__).splitlines()[0].rstrip(".")
