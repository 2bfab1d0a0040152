"""Finding people: the interface of detectors, and a search of the whole image at several scales."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.network_runner import Network, open_network, runner_name

LOWEST = 0.05  # score: boxes below it are not returned
OVERLAP = 0.25  # of neighboring tiles, relative to their side: larger things are found in the whole image
_FINER = 1.25  # tiles are searched if their scale is at least this multiple of the whole image's
_SMALLEST = 192  # pixels of the longer side of a shrunk view
_ENLARGED = 640  # pixels of the longer side of an enlarged view, at most


class Box(NamedTuple):
    """Edges in pixels of the image, from its top left corner, and a score from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


class Detector(ABC):
    """Finds people in an image. The network is opened when it is first used.

    A detector can be sent to another process, where it is opened anew by its name. CurationError is raised there if its weights
    have changed.

    - name: what `open_detector` opens: "centerface", or the full path of a file.
    - weights_sha256: of the file of the network.
    - detects: "faces" or "persons". not_checked: what it does not find, in words.
    - tile: pixels; larger images are searched in tiles of this side.
    - scales: at which a whole image is searched, relative to its size, or to `tile` if larger; only small images are enlarged.
    """

    detects: ClassVar[str]
    not_checked: ClassVar[str]
    tile: int
    scales: ClassVar[tuple[float, ...]] = (1.0,)

    def __init__(self, name: str, model: bytes, file: str) -> None:
        self.name = name
        self.weights_sha256 = hashlib.sha256(model).hexdigest()
        self._model = model
        self._file = file  # its name, for errors and the manifest

    @property
    def description(self) -> str:
        """For the manifest. Raises CurationError where no package that runs networks is installed."""
        return f"{self._file}, weights sha256 {self.weights_sha256}, runner {runner_name()}"

    @abstractmethod
    def detect(self, image: NDArray[np.uint8]) -> list[Box]:
        """Boxes of at least LOWEST in uint8[H, W, 3], RGB, best first, none of them twice. Raises CurationError."""

    @cached_property
    def _network(self) -> Network:
        return open_network(self._runnable(), self._file)

    def _runnable(self) -> bytes:
        """The network as it is run: the file, or what is made of it."""
        return self._model

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (self.name, self.weights_sha256)


def open_detector(name: str) -> Detector:
    """The detector "centerface", or that in an ONNX file whose path ends in .onnx (see `onnx_detector`).

    Raises CurationError for another name, for a file that cannot be used, and where a package is missing.
    """
    # These files import this one.
    from wildfern.ssl.curation.centerface import CenterFace
    from wildfern.ssl.curation.onnx_detector import OnnxDetector

    if name == CenterFace.NAME:
        return CenterFace()
    if Path(name).suffix.lower() == ".onnx":
        return OnnxDetector(name)
    raise CurationError(
        f"people.detector {name!r} is neither {CenterFace.NAME!r} (faces) nor the path of an ONNX file, which ends in .onnx"
    )


@lru_cache(2)
def _open_again(name: str, weights_sha256: str) -> Detector:
    detector = open_detector(name)
    if detector.weights_sha256 != weights_sha256:
        raise CurationError(f"the weights of people.detector {name} were replaced meanwhile; start again")
    return detector


def detect_everywhere(
    detector: Detector, image: NDArray[np.uint8], *, tile: int | None = None, largest: int = 2048
) -> list[Box]:
    """Boxes in uint8[H, W, 3], RGB, from the whole image and, if it is large, from overlapping tiles, best first.

    - tile: pixels of a tile's side; None: the detector's own.
    - largest: pixels; an image with a longer side is shrunk to it before it is divided into tiles.

    Raises CurationError as `Detector.detect` does, ValueError for another array.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"the image must be uint8[H, W, 3], not {image.dtype}{list(image.shape)}")
    height, width = image.shape[:2]
    found: list[Box] = []
    for scale, windows in _views(height, width, tile or detector.tile, largest, detector.scales):
        view = _resized(image, scale)
        # The true ratios, of rounded sides.
        x, y = width / view.shape[1], height / view.shape[0]
        for left, top, right, bottom in windows:
            boxes = detector.detect(np.ascontiguousarray(view[top:bottom, left:right]))
            found += [
                Box(
                    max((box.left + left) * x, 0.0),
                    max((box.top + top) * y, 0.0),
                    min((box.right + left) * x, float(width)),
                    min((box.bottom + top) * y, float(height)),
                    box.score,
                )
                for box in boxes
            ]
    return merge_boxes(found)


def merge_boxes(boxes: Sequence[Box], overlap: float = 0.5) -> list[Box]:
    """Non-maximum suppression: the best first, without those that share over `overlap` of their union with a better one."""
    if not boxes:
        return []
    left, top, right, bottom, score = np.array(boxes, np.float64).T
    area = (right - left) * (bottom - top)
    remaining = np.argsort(-score, kind="stable")
    kept = []
    while remaining.size:
        best, remaining = remaining[0], remaining[1:]
        kept.append(boxes[best])
        width = np.minimum(right[best], right[remaining]) - np.maximum(left[best], left[remaining])
        height = np.minimum(bottom[best], bottom[remaining]) - np.maximum(top[best], top[remaining])
        common = np.maximum(width, 0) * np.maximum(height, 0)
        remaining = remaining[common <= overlap * (area[best] + area[remaining] - common)]
    return kept


_Window = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the view


def _views(
    height: int, width: int, tile: int, largest: int, scales: Sequence[float]
) -> Iterator[tuple[float, list[_Window]]]:
    """Scales of the image, with the windows to search at each."""
    longer = max(height, width)
    fitting = min(1.0, tile / longer)
    for relative in scales:
        scale = fitting * relative
        allowed = longer * scale <= min(_ENLARGED, tile) if relative > 1 else longer * scale >= _SMALLEST
        if relative == 1 or allowed:
            h, w = _size(height, width, scale)
            yield scale, [(0, 0, w, h)]
    finest = min(1.0, largest / longer)
    if finest >= _FINER * fitting:
        h, w = _size(height, width, finest)
        yield finest, [(x, y, min(x + tile, w), min(y + tile, h)) for y in _starts(h, tile) for x in _starts(w, tile)]


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover `length` with the least overlap of at least OVERLAP."""
    if length <= tile:
        return [0]
    steps = ceil((length - tile) / (tile * (1 - OVERLAP)))
    return [round(step * (length - tile) / steps) for step in range(steps + 1)]


def _size(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _resized(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return image
    height, width = _size(image.shape[0], image.shape[1], scale)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
