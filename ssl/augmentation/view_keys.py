"""Random keys of operations that are not in the view table: one per image of a view, or one per step and view."""

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import Keys, fold, key


def step_key(operation: str, seed: int, step: int, view: int) -> Keys:
    """uint64[1]: the key that all images of view `view` share in global step `step`, for the operation of that name."""
    return fold(fold(np.full(1, key(operation, seed), np.uint64), step), view)


def image_keys(operation: str, seed: int, step: int, view: int, positions: NDArray[np.int64]) -> Keys:
    """uint64[n]: a key for each image at these positions (int64[n]) of the global batch."""
    return fold(step_key(operation, seed, step, view), np.asarray(positions, np.int64))
