"""Recall of thin and of wide objects: the mask's pixels by the local width of their object."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from wildfern.ssl.evaluation.metrics.cl_dice import skeleton
from wildfern.ssl.evaluation.metrics.overlap import binary_image, binary_pair

# Pixels: bars of 1 and 2 pixels have the width 2, of 3 and 4 the width 4, of 5 to 8 the widths 6 and 8.
BANDS = (0.0, 2.0, 4.0, 8.0, np.inf)


def local_widths(mask: ArrayLike) -> NDArray[np.float32]:
    """The width in pixels of the object at each mask pixel, float32[H, W]; 0 elsewhere.

    It is 2 d, where d is the distance to the background of the nearest skeleton pixel. A straight bar of w pixels has the width w
    if w is even, w + 1 if it is odd, and less at its ends. The image's border is not background,
    unless there is no other. A pixel at the edge of a wide object may be nearer to the skeleton of a thin one beside it, and then
    has that one's width. Raises ValueError for a mask that is not [H, W] of 0 and 1.
    """
    inside = binary_image(mask, "mask")
    widths = np.zeros(inside.shape, np.float32)
    if not inside.any():
        return widths
    lines = skeleton(inside)
    filled = bool(inside.all())
    depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] if filled else distance_transform_edt(inside)
    nearest = distance_transform_edt(~lines, return_distances=False, return_indices=True)
    widths[inside] = 2 * depth[tuple(nearest[:, inside])]
    return widths


def recall_by_width(
    predicted: ArrayLike,
    mask: ArrayLike,
    bands: Sequence[float] = BANDS,
    widths: ArrayLike | None = None,
    region: ArrayLike | None = None,
) -> dict[str, tuple[float, int]]:
    """The share of mask pixels of each band of widths that is predicted, and their number, by names such as `recall_2_to_4_px`.

    A band has the pixels of low < width ≤ high. `widths` float[H, W] in pixels, if known, is read at the mask's pixels; by
    default it is `local_widths` of the whole mask, as a region's border does not make an object thin. Bands without pixels in the
    region are left out. Raises ValueError for bands that do not ascend from at least 0, widths of another size or NaN; other
    errors as `overlap.binary_pair`.
    """
    edges = [float(edge) for edge in bands]
    if len(edges) < 2 or edges[0] < 0 or not all(low < high for low, high in pairwise(edges)):
        raise ValueError(f"bands are at least two widths in pixels in ascending order from at least 0, got {edges}")
    predicted, counted, _ = binary_pair(predicted, mask, region)
    known = local_widths(mask) if widths is None else np.asarray(widths)
    if known.shape != counted.shape:
        raise ValueError(f"widths and mask are of one image, got {list(known.shape)} and {list(counted.shape)}")
    of_pixels, found = known[counted], predicted[counted]
    if np.isnan(of_pixels).any():
        raise ValueError("the widths of the mask's pixels contain NaN")
    recalls = {}
    for low, high in pairwise(edges):
        of_band = found[(of_pixels > low) & (of_pixels <= high)]
        if len(of_band):
            recalls[_name(low, high)] = float(of_band.mean()), len(of_band)
    return recalls


def _name(low: float, high: float) -> str:
    return f"recall_over_{low:g}_px" if high == np.inf else f"recall_{low:g}_to_{high:g}_px"
