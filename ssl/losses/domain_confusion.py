"""Losses of a discriminator of two domains and of the network that confuses it (Tsai et al., CVPR 2018; FreeCOS, ICCV 2023)."""

import torch
from torch import Tensor
from torch.nn import functional as F

SOURCE, TARGET = 0.0, 1.0  # labels of the domains


def domain_loss(logits: Tensor, domain: float) -> Tensor:
    """float[N]: for each image the mean binary cross entropy of the discriminator's logits float[N, 1, h, w] with `domain`.

    With the images' own domain it trains the discriminator; `SOURCE` for images of the target trains the network that made
    the predictions, so that they look like those of the source.
    """
    wanted = torch.full_like(logits, domain)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2, 3))
