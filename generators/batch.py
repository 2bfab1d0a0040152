"""What every stream yields."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageBatch:
    """Images with what their generator knows of them; what a stream does not have is None.

    All are numpy arrays; of a stream drawn by a GPU, `images` and `paired_images` are torch.uint8 tensors on it.

    - images: uint8[N, S, S, 3].
    - labels: the class of each sample, int64[N]; of images of several classes, a 1 for each of them, uint8[N, classes].
    - masks: 1 where the object is, 0 elsewhere, uint8[N, S, S].
    - paired images: the second image of each sample, uint8[N, S, S, 3], where a sample is a positive pair.
    - widths: width in pixels of the branch that a mask's pixel belongs to, 0 elsewhere, float32[N, S, S].
    - centerlines: 1 on the one-pixel middle lines of branches, 0 elsewhere, uint8[N, S, S].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None
    masks: NDArray[np.uint8] | None = None
    paired_images: NDArray[np.uint8] | None = None
    widths: NDArray[np.float32] | None = None
    centerlines: NDArray[np.uint8] | None = None

    def arrays(self) -> dict[str, NDArray]:
        """The fields that are there, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def on_host(self) -> "ImageBatch":
        """The same with all of it in numpy arrays; waits for what a GPU has still to draw."""
        return ImageBatch(**{k: a if isinstance(a, np.ndarray) else a.cpu().numpy() for k, a in self.arrays().items()})

    def split(self, parts: int) -> list["ImageBatch"]:
        """Consecutive parts of about one size that share memory with this batch, as numpy's `array_split`."""
        pieces = {name: np.array_split(array, parts) for name, array in self.arrays().items()}
        return [ImageBatch(**{name: piece[i] for name, piece in pieces.items()}) for i in range(parts)]
