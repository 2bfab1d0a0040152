"""The batch that every stream returns."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageBatch:
    """Images and their annotations; fields that a stream does not provide are None.

    All are numpy arrays; streams that render on a GPU return `images` and `paired_images` as torch.uint8 tensors on it.

    - images: uint8[N, S, S, 3].
    - labels: the class of each sample, int64[N]; or multi-hot, uint8[N, classes], where images show several classes.
    - masks: 1 where the object is, 0 elsewhere, uint8[N, S, S].
    - paired_images: the second image of each positive pair, uint8[N, S, S, 3].
    - widths: width in pixels of the branch at each mask pixel, 0 elsewhere, float32[N, S, S].
    - centerlines: 1 on the one-pixel centerlines of branches, 0 elsewhere, uint8[N, S, S].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None
    masks: NDArray[np.uint8] | None = None
    paired_images: NDArray[np.uint8] | None = None
    widths: NDArray[np.float32] | None = None
    centerlines: NDArray[np.uint8] | None = None

    def arrays(self) -> dict[str, NDArray]:
        """The fields that are not None, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def on_host(self) -> "ImageBatch":
        """A copy with numpy arrays only; waits until the GPU has rendered."""
        return ImageBatch(**{k: a if isinstance(a, np.ndarray) else a.cpu().numpy() for k, a in self.arrays().items()})

    def split(self, parts: int) -> list["ImageBatch"]:
        """Consecutive parts of about equal size, as views of this batch's memory (numpy's `array_split`)."""
        pieces = {name: np.array_split(array, parts) for name, array in self.arrays().items()}
        return [ImageBatch(**{name: piece[i] for name, piece in pieces.items()}) for i in range(parts)]
