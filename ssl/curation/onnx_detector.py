"""Persons with a user's own detector, an ONNX file.

The file has one input, float32[1, 3, H, W], RGB from 0 to 1; H and W are 640 where the file leaves them free. An image is resized
to fit, with its aspect ratio kept, and centered on gray (114 of 255). Scores are probabilities, class 0 is that of persons,
coordinates are pixels of the input. With N for the number of boxes and C for that of classes, the outputs are one of these:

- [1, 4 + C, N], N > 4 + C: center x, center y, width, height, C scores. YOLOv8, YOLO11.
- [1, N, 4 + C]: the same, if 4 + C is 5 or 84.
- [1, N, 5 + C]: center x, center y, width, height, objectness, C scores, if N is three for each cell, or 5 + C is 85. YOLOv5.
- [1, N, 6]: left, top, right, bottom, score, class, if N is not the number of cells. YOLOv10, YOLO26.
- [1, N, 4] and [1, N]: left, top, right, bottom; scores. An integer [1, N], classes, may follow. Networks with suppression.

Cells are those of the strides 8, 16 and 32, with or without 64. Any other [1, N, K] is refused: it could be read in two ways.
Weights must be in the file itself, so that its SHA-256 stands for them. Networks that want another input than the above, such as
YOLOX (BGR from 0 to 255), run but find little: try the detector on a few images first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.files import read_bytes
from wildfern.ssl.curation.detector import LOWEST, Box, Detector, merge_boxes
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.onnx_graph import FLOAT, read_graph

MOST_BYTES = 2**29  # of a file
FREE_SIDE = 640  # pixels, of the input of a network that takes any
_MOST_SIDE = 4096
_GRAY = 114
_STRIDES = (8, 16, 32, 64)
_ACCEPTED = (
    "[1, 4 + classes, N] (center x, center y, width, height, scores), or [1, N, 4] (left, top, right, bottom) and [1, N] "
    "(scores) are right"
)

_Output = NDArray[Any]


class OnnxDetector(Detector):
    """The person detector in an ONNX file.

    It is tried on a gray image at once. Raises CurationError for a file that cannot be read or run, and for inputs or outputs
    other than those above.
    """

    detects = "persons"
    not_checked = "persons that the file in people.detector does not find; how many these are was not measured"

    def __init__(self, path: str | Path) -> None:
        path = Path(path).expanduser().resolve()
        try:
            model = read_bytes(path, MOST_BYTES)
        except FileNotFoundError:
            raise CurationError(f"people.detector: there is no file {path}") from None
        except OSError as error:
            raise CurationError(f"people.detector: {path} cannot be read: {error.strerror or error}") from error
        super().__init__(str(path), model, path.name)
        self._height, self._width = _input_size(model, path.name)
        self.tile = max(self._height, self._width)
        self.detect(np.full((self._height, self._width, 3), _GRAY, np.uint8))

    def detect(self, image: NDArray[np.uint8]) -> list[Box]:
        height, width = image.shape[:2]
        fitted, scale, left, top = letterbox(image, self._height, self._width)
        outputs = self._network(fitted)
        try:
            boxes, scores = decode(outputs, self._height, self._width)
            likely = scores >= LOWEST
            boxes, scores = boxes[likely], scores[likely]
            if boxes.size and boxes.max() <= 1.5:
                raise ValueError("its boxes are from 0 to 1 and not in pixels of the input")
        except ValueError as error:
            raise CurationError(f"people.detector {self._file}: {error}; {_ACCEPTED}") from error
        boxes = (boxes - [left, top, left, top]) / scale
        boxes = boxes.clip(0, [width, height, width, height])
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # not in the margin
        found = np.column_stack([boxes, scores])[inside]
        return merge_boxes([Box(*box) for box in found.tolist()])


def letterbox(image: NDArray[np.uint8], height: int, width: int) -> tuple[NDArray[np.float32], float, float, float]:
    """uint8[h, w, 3] as float32[1, 3, height, width] from 0 to 1, resized to fit and centered on gray.

    Also returns the scale, and the left and top margin in pixels: a point x of the image is at scale * x + left.
    """
    h, w = image.shape[:2]
    scale = min(height / h, width / w)
    inner = (max(round(w * scale), 1), max(round(h * scale), 1))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.full((height, width, 3), _GRAY, np.uint8)
    resized = Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR)
    canvas[top : top + inner[1], left : left + inner[0]] = np.asarray(resized)
    fitted = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    return fitted, scale, float(left), float(top)


def decode(outputs: Sequence[_Output], height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes of persons, float64[N, 4], left, top, right and bottom in pixels of the input, and their scores, float64[N].

    Raises ValueError for outputs that are none of those above.
    """
    for output in outputs:
        if output.ndim < 2 or output.shape[0] != 1:
            raise ValueError(f"its outputs are {_shapes(outputs)}")
    boxes, scores = _one_output(outputs[0], height, width) if len(outputs) == 1 else _several_outputs(outputs)
    if not ((scores >= -1e-3) & (scores <= 1.001)).all():
        raise ValueError("its scores are no probabilities from 0 to 1")
    if not np.isfinite(boxes).all():
        raise ValueError("its boxes are not finite")
    return boxes.astype(np.float64), scores.clip(0, 1).astype(np.float64)


def _one_output(output: _Output, height: int, width: int) -> tuple[_Output, _Output]:
    if output.ndim != 3:
        raise ValueError(f"its output is {_shapes([output])}")
    rows = output[0]
    count, columns = rows.shape
    cells = _numbers_of_cells(height, width)
    tripled = {3 * number for number in cells}
    if columns == 6 and count not in cells | tripled:
        person = rows[:, 5] == 0
        return rows[person, :4], rows[person, 4]
    if 5 <= count < columns:
        return _corners(rows.T), rows[4]
    if columns in (5, 84) and count >= columns and count not in tripled:
        return _corners(rows), rows[:, 4]
    if columns >= 6 and count >= columns and (columns == 85 or count in tripled):
        return _corners(rows), rows[:, 4] * rows[:, 5]
    raise ValueError(f"its output is {_shapes([output])}, which has several meanings, or none")


def _several_outputs(outputs: Sequence[_Output]) -> tuple[_Output, _Output]:
    boxes = [output[0] for output in outputs if output.ndim == 3 and output.shape[2] == 4]
    scores = [output[0] for output in outputs if output.ndim == 2 and output.dtype.kind == "f"]
    classes = [output[0] for output in outputs if output.ndim == 2 and output.dtype.kind in "iu"]
    if not (
        len(boxes) == len(scores) == 1
        and len(classes) <= 1
        and len(outputs) == 2 + len(classes)
        and {len(one) for one in [*boxes, *scores, *classes]} == {len(boxes[0])}
    ):
        kinds = ", ".join(f"{output.dtype}{list(output.shape)}" for output in outputs)
        raise ValueError(f"its outputs are {kinds}")
    if not classes:
        return boxes[0], scores[0]
    person = classes[0] == 0
    return boxes[0][person], scores[0][person]


def _corners(rows: _Output) -> _Output:
    center, half = rows[:, :2], rows[:, 2:4] / 2
    return np.concatenate([center - half, center + half], axis=1)


def _numbers_of_cells(height: int, width: int) -> set[int]:
    levels = [(height // stride) * (width // stride) for stride in _STRIDES]
    return {sum(levels), sum(levels[:-1])}


def _shapes(outputs: Sequence[_Output]) -> str:
    return " and ".join(str(list(output.shape)) for output in outputs)


def _input_size(model: bytes, name: str) -> tuple[int, int]:
    """Height and width of the input."""
    try:
        graph = read_graph(model)
    except ValueError as error:
        raise CurationError(f"people.detector: {name} is no ONNX file, or it is damaged: {error}") from error
    if graph.external:
        raise CurationError(
            f"people.detector: {name} keeps weights in a second file; export all into one, which has one SHA-256"
        )
    if len(graph.inputs) != 1:
        raise CurationError(
            f"people.detector: {name} has {len(graph.inputs)} inputs; one image, [1, 3, H, W], is right"
        )
    _, element, shape = graph.inputs[0]
    if element != FLOAT or shape is None or len(shape) != 4 or shape[0] not in (1, None) or shape[1] not in (3, None):
        found = "no shape" if shape is None else f"the shape [{', '.join(str(size or '?') for size in shape)}]"
        kind = "" if element == FLOAT else f" and the ONNX data type {element}"
        raise CurationError(f"people.detector: {name} has an input with {found}{kind}; float32 [1, 3, H, W] is right")
    height, width = shape[2] or FREE_SIDE, shape[3] or FREE_SIDE
    if max(height, width) > _MOST_SIDE:
        raise CurationError(
            f"people.detector: {name} wants {height} x {width} pixels; at most {_MOST_SIDE} are possible"
        )
    return height, width
