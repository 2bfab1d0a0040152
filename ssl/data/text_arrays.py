"""Lists of a few texts in an index, as arrays of bytes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def as_text(parts: Sequence[str]) -> NDArray[np.uint8]:
    """The texts in UTF-8, each with a zero behind it; a zero in a text becomes a space. File names that are no UTF-8 are kept."""
    encoded = b"".join(part.replace("\0", " ").encode("utf-8", "surrogatepass") + b"\0" for part in parts)
    return np.frombuffer(encoded, np.uint8)


def texts(array: NDArray[np.uint8]) -> list[str]:
    """The texts of `as_text`."""
    return [part.decode("utf-8", "surrogatepass") for part in array.tobytes().split(b"\0")[:-1]]
