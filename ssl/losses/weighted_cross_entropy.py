"""Binary cross entropy of pixels with a weight for the object and one for the background (FreeCOS, Shi et al., ICCV 2023)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_cross_entropy(logits: Tensor, target: Tensor, foreground: float, background: float) -> Tensor:
    """float[N]: for each image the mean over pixels of weight × binary cross entropy; not divided by the sum of the weights.

    `logits` and `target` are float[N, H, W]; target is 1 in objects, whose weight is `foreground`, and 0 elsewhere.
    """
    weight = torch.where(target > 0.5, logits.new_tensor(foreground), logits.new_tensor(background))
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none").mean(dim=(1, 2))
