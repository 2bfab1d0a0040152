"""What every stream yields."""

from dataclasses import dataclass

from numpy import int64, uint8
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """Pictures with what their generator knows of them.

    images: [N, S, S, 3]. labels: [N], or None where a stream has no classes. masks: [N, S, S], or None.
    """

    images: NDArray[uint8]
    labels: NDArray[int64] | None = None
    masks: NDArray[uint8] | None = None
