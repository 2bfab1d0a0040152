"""Soft Dice loss of probabilities against masks (Milletari et al., 2016, V-Net; of a whole batch, as in FreeCOS)."""

import torch
from torch import Tensor

EPSILON = 1e-5


def dice_sums(probabilities: Tensor, target: Tensor) -> Tensor:
    """float[3] of float[...] and target float[...] of one shape: sum of their products, of probabilities, of the target."""
    return torch.stack([(probabilities * target).sum(), probabilities.sum(), target.sum()])


def dice_loss(sums: Tensor, epsilon: float = EPSILON) -> Tensor:
    """1 - (2 Σ p t + ε) / (Σ p + Σ t + ε) from `dice_sums`, which may be added up over ranks: a scalar in [0, 1)."""
    product, predicted, wanted = sums.unbind()
    return 1 - (2 * product + epsilon) / (predicted + wanted + epsilon)
