"""What methods share whose teacher assigns images to prototypes: the warm-up of its temperature, and metrics of collapse."""

import torch
from torch import Tensor

from wildfern.ssl.methods.batch import Metrics
from wildfern.ssl.methods.gather import mean_over_ranks


def warmed_up(start: float, end: float, warmup_steps: float, step: int) -> float:
    """Linear from `start` at step 0 to `end` after `warmup_steps`, then constant."""
    return end if step >= warmup_steps else start + (end - start) * step / warmup_steps


@torch.no_grad()
def prototype_metrics(probabilities: Tensor, student: Tensor) -> Metrics:
    """Metrics of the teacher's probabilities float[T, N, P] for T = 2 views, and the student's logits float[S ≥ 2, N, P].

    teacher_entropy: mean entropy of an image's probabilities, 0 to ln P. agreement: share of views whose most likely prototype
    is that of the teacher for the other view. prototype_use: see the function.
    """
    agreement = (student[:2].argmax(-1) == probabilities.flip(0).argmax(-1)).float().mean()
    return {
        "teacher_entropy": entropy(probabilities).mean(),
        "agreement": agreement,
        "prototype_use": prototype_use(probabilities),
    }


@torch.no_grad()
def prototype_use(probabilities: Tensor) -> Tensor:
    """exp(entropy of the mean over float[..., P])/P: 1 if prototypes are used equally, 1/P if one gets everything.

    The mean is over this micro-batch of all ranks, so that N images in V views use at most about V·N of many prototypes.
    """
    mean = mean_over_ranks(probabilities.flatten(0, -2).mean(dim=0))
    return entropy(mean).exp() / len(mean)


def entropy(p: Tensor) -> Tensor:
    """Entropy of probabilities float[..., P]: float[...]."""
    return -(p * p.clamp_min(1e-12).log()).sum(-1)
