"""Rows of length 1, for cosine similarities: right for any finite features, however small or large."""

import torch
from torch import Tensor


def unit_rows(features: Tensor) -> Tensor:
    """Each row of float[..., D] divided by its norm: float32[..., D], or float64 if that was given. Rows of zeros stay zeros.

    A row is first multiplied by the power of two that brings its largest entry to about 1, since float32 has no squares of
    entries below 1e-22 or above 1e19. That is exact, so ordinary rows are, bit for bit, those of
    `torch.nn.functional.normalize`. A row with NaN or infinity has NaN. For frozen features: not differentiable.
    """
    rows = features if features.dtype == torch.float64 else features.float()
    rows = rows * exact_scale(torch.linalg.vector_norm(rows, torch.inf, dim=-1, keepdim=True))
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows.div_(torch.where(norm > 0, norm, 1.0))  # in place: of a large bank, each copy counts


def exact_scale(largest: Tensor) -> Tensor:
    """For each number ≥ 0, float32 or float64, the power of two that brings it to [1, 2), so that a product with it is exact.

    The nearest one for what is too small or too large for that: zero, subnormal numbers and the largest of all.
    """
    integer, digits, bias = (torch.int64, 52, 1023) if largest.dtype == torch.float64 else (torch.int32, 23, 127)
    exponent = largest.view(integer) >> digits  # the bits below are the fraction
    return ((2 * bias - exponent).clamp(min=1) << digits).view(largest.dtype)
