"""PCA maps of a backbone's patch tokens or last feature map, and attention maps of its class token, for some images."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.ssl.evaluation.features import stream
from wildfern.ssl.evaluation.labeled_chunks import LabeledChunk
from wildfern.ssl.evaluation.preprocessing import Pixels, Preprocessing
from wildfern.ssl.evaluation.report.class_attention import with_class_attention
from wildfern.ssl.evaluation.report.image_details import LEAST_GRID, MOST_GRID
from wildfern.ssl.evaluation.transformed import TransformedBackbone

COLORS = 3  # principal components
PERCENTILES = (1, 99)  # of a component, from black to white
ROUNDING = 1e-6  # a component of less, as a share of the norm of all tokens, is rounding of float32


def patch_maps(
    backbone: nn.Module, pixels: Pixels, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None] | None:
    """PCA maps uint8[n, R, K, 3] of n images, and attention maps uint8[n, R, K] of a network that has them.

    Of a network with one token for each patch, the tokens after its last norm; of others the last of `Backbone.maps`. An
    attention map is scaled to its largest value. None for networks without either, and for other grids than of 4 to 64 a side.
    """
    try:
        grids, attention = _grids(backbone, LabeledChunk(pixels, np.full(len(pixels), -1)), preprocessing)
    except ValueError:  # a network without tokens and maps, which has its scores all the same
        return None
    if not all(LEAST_GRID <= side <= MOST_GRID for side in grids.shape[1:3]) or not torch.isfinite(grids).all():
        return None
    return principal_colors(grids), None if attention is None else _gray(attention.view(grids.shape[:3]))


def _grids(backbone: nn.Module, chunk: LabeledChunk, preprocessing: Preprocessing) -> tuple[Tensor, Tensor | None]:
    """Features float[n, R, K, D] of the patches and attention float[n, R · K]. ValueError for a network that has none."""
    inner: Any = backbone
    while isinstance(inner, TransformedBackbone):
        inner = inner.backbone
    if getattr(inner, "patch_size", None) is None:
        return next(stream(backbone, [chunk], "maps", preprocessing)).x[-1].permute(0, 2, 3, 1), None
    tokens, attention = with_class_attention(
        inner.network, lambda: next(stream(backbone, [chunk], "tokens", preprocessing)).x.patches
    )
    height, width = (1, 1) if preprocessing.size else chunk.pixels[0].shape[:2]
    rows = max(1, round(math.sqrt(tokens.shape[1] * height / width)))  # of square patches
    if tokens.shape[1] % rows:
        raise ValueError(f"{tokens.shape[1]} patches are no grid of {height} to {width}")
    return tokens.unflatten(1, (rows, -1)), attention


def principal_colors(grids: Tensor) -> NDArray[np.uint8]:
    """The first three principal components of all vectors float[n, R, K, D] together, as colors uint8[n, R, K, 3].

    As in figure 1 of DINOv2 (Oquab et al., 2023), without its mask of the background. Each is scaled from its 1st to its 99th
    percentile, with the sign that makes the sum of its cubes positive: the rare values are bright. A component that does not vary
    is gray.
    """
    rows = grids.flatten(0, 2).cpu().double()
    left, scales, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    scales = torch.where(scales > ROUNDING * rows.norm(), scales, 0)[:COLORS]
    points = np.zeros((len(rows), COLORS))
    points[:, : len(scales)] = left[:, :COLORS] * scales
    points *= np.where((points**3).sum(0) < 0, -1, 1)
    low, high = np.percentile(points, PERCENTILES, axis=0)
    shares = np.divide(points - low, high - low, out=np.full_like(points, 0.5), where=high > low)
    return _bytes(shares).reshape(*grids.shape[:3], COLORS)


def _gray(attention: Tensor) -> NDArray[np.uint8]:
    return _bytes((attention / attention.amax((1, 2), keepdim=True).clamp_min(1e-30)).cpu().numpy())


def _bytes(shares: NDArray[Any]) -> NDArray[np.uint8]:
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)
