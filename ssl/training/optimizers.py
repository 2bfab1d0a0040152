"""Optimizers by name, over parameter groups that spare biases and normalization from weight decay."""

from collections.abc import Iterable
from typing import Annotated

import torch
from lightly.utils.lars import LARS
from pydantic import Field
from torch import nn

from wildfern.registry import OPTIMIZERS, register
from wildfern.ssl.training.lamb import LAMB

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]

Groups = list[dict]


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> Groups:
    """Two groups: matrices and kernels with weight decay; vectors and scalars (biases, normalization) without.

    Frozen parameters are left out. LARS and LAMB take the second group without layer-wise scaling, as SimCLR does.
    """
    parameters = [p for _, p in named if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay, "decays": True},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "decays": False},
    ]
    return [g for g in groups if g["params"]]


@register("optimizer", "adamw")
def adamw(
    groups: Groups,
    *,
    learning_rate: Positive,
    weight_decay: NotNegative = 0.05,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019); one fused kernel on a GPU."""
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=_on_gpu(groups))


@register("optimizer", "sgd")
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


@register("optimizer", "lars", layer_wise=True)
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


@register("optimizer", "lamb", layer_wise=True)
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


def is_layer_wise(name: str) -> bool:
    """Whether an optimizer needs each layer whole, as its attribute `layer_wise` says; ZeRO stages above 0 flatten layers."""
    return bool(getattr(OPTIMIZERS[name], "layer_wise", False))


def set_hyperparameters(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Write the step's learning rate into every group and its weight decay into those that decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decays"]:
            group["weight_decay"] = weight_decay
