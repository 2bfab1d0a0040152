"""Optimizers by name. They get the groups of `parameter_groups.py`."""

from typing import Annotated

import torch
from lightly.utils.lars import LARS
from pydantic import Field

from wildfern.ssl.training.lamb import LAMB

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]

Groups = list[dict]


def adamw(
    groups: Groups,
    *,
    learning_rate: Positive,
    weight_decay: NotNegative = 0.05,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019); one fused kernel on a GPU."""
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=_on_gpu(groups))


def sgd(
    groups: Groups,
    *,
    learning_rate: Positive,
    weight_decay: NotNegative = 1e-4,
    momentum: Beta = 0.9,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov, fused=_on_gpu(groups))


def lars(
    groups: Groups,
    *,
    learning_rate: Positive,
    weight_decay: Positive = 1e-6,
    momentum: Beta = 0.9,
    trust_coefficient: Positive = 0.001,
) -> torch.optim.Optimizer:
    """LARS (You et al., 2017) from lightly. Layer-wise: not for ZeRO stages above 0.

    Weight decay is greater than 0, for a group without it is one without layer-wise scaling there.
    """
    return LARS(groups, lr=learning_rate, momentum=momentum, trust_coefficient=trust_coefficient)


def lamb(
    groups: Groups,
    *,
    learning_rate: Positive,
    weight_decay: NotNegative = 0.01,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """LAMB (You et al., 2020). Layer-wise: not for ZeRO stages above 0."""
    return LAMB(groups, lr=learning_rate, betas=betas)


def _on_gpu(groups: Groups) -> bool:
    return all(p.is_cuda for group in groups for p in group["params"])


OPTIMIZERS = {"adamw": adamw, "sgd": sgd, "lars": lars, "lamb": lamb}
LAYER_WISE = frozenset({"lars", "lamb"})


def set_hyperparameters(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Write the step's learning rate into every group and its weight decay into those that decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_factor", 1.0)
        if group["decays"]:
            group["weight_decay"] = weight_decay * group.get("weight_decay_factor", 1.0)
