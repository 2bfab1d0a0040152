"""Optimizers by name. They get the groups of `parameter_groups.py`."""

from typing import Annotated

import torch
from pydantic import Field

from wildfern.registry import OPTIMIZERS, register
from wildfern.ssl.methods.usual import UsualRates

MOST_RATE = 1e6  # far above any use; torch fails on products beyond float32
Rate = Annotated[float, Field(gt=0, le=MOST_RATE)]
Decay = Annotated[float, Field(ge=0, le=MOST_RATE)]
Positive = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]

Groups = list[dict]


@register("optimizer", "adamw", usual=UsualRates("DINO, MAE and MoCo v3: 1.5e-4 to 2e-3", most=0.02))
def adamw(
    groups: Groups,
    *,
    learning_rate: Rate,
    weight_decay: Decay = 0.05,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019); one fused kernel on a GPU."""
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=_on_gpu(groups))


@register("optimizer", "adam")
def adam(
    groups: Groups,
    *,
    learning_rate: Rate,
    weight_decay: Decay = 0.0,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, 2015, algorithm 1); one fused kernel on a GPU.

    Weight decay is added to the gradient, and so divided by its size; that of `adamw` is not.
    """
    return torch.optim.Adam(groups, lr=learning_rate, betas=betas, fused=_on_gpu(groups))


@register("optimizer", "sgd")
def sgd(
    groups: Groups,
    *,
    learning_rate: Rate,
    weight_decay: Decay = 1e-4,
    momentum: Beta = 0.9,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov, fused=_on_gpu(groups))


@register(
    "optimizer",
    "lars",
    layer_wise=True,
    usual=UsualRates("You et al., 2017; SimCLR and BYOL: 0.2 to 0.45 for 256 images", least=0.01, batch_size=512),
)
def lars(
    groups: Groups,
    *,
    learning_rate: Rate,
    weight_decay: Annotated[float, Field(gt=0, le=MOST_RATE)] = 1e-6,
    momentum: Beta = 0.9,
    trust_coefficient: Positive = 0.001,
) -> torch.optim.Optimizer:
    """LARS (You et al., 2017) from lightly. Layer-wise: not for ZeRO stages above 0.

    Weight decay must be greater than 0, since a group without it is not scaled layer by layer.
    """
    from lightly.utils.lars import LARS

    return LARS(groups, lr=learning_rate, momentum=momentum, trust_coefficient=trust_coefficient)


@register("optimizer", "lamb", layer_wise=True)
def lamb(
    groups: Groups,
    *,
    learning_rate: Rate,
    weight_decay: Decay = 0.01,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """LAMB (You et al., 2020, algorithm 2) from timm. Layer-wise: not for ZeRO stages above 0.

    As in the authors' implementation, groups without weight decay are not scaled layer by layer; the others are, even if
    the schedule sets their weight decay to 0. The engine clips the gradient.
    """
    from timm.optim import Lamb  # imports all of timm's optimizers, and torch._dynamo

    groups = [{**group, "always_adapt": group["decays"]} for group in groups]
    return Lamb(groups, lr=learning_rate, betas=betas, max_grad_norm=None)


def _on_gpu(groups: Groups) -> bool:
    return all(p.is_cuda for group in groups for p in group["params"])


def is_layer_wise(name: str) -> bool:
    """Whether an optimizer needs each layer whole, as its attribute `layer_wise` says; ZeRO stages above 0 flatten layers."""
    return bool(getattr(OPTIMIZERS.get(name), "layer_wise", False))


def set_hyperparameters(
    optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float, freeze: bool = False
) -> None:
    """Set the step's learning rate in every group and its weight decay in those that decay.

    With `freeze` both are 0 in groups with the key `frozen`: their weights stay, while the optimizer follows their gradients.
    In groups with the key `constant_rate` the learning rate is their `initial_lr`, whatever `learning_rate` is; in groups with
    the key `peak_rate` it is `initial_lr` when `learning_rate` is that peak, and in proportion otherwise.
    """
    for group in optimizer.param_groups:
        moving = 0.0 if freeze and group.get("frozen") else 1.0
        group["lr"] = moving * _rate(group, learning_rate) * group.get("lr_factor", 1.0)
        if group["decays"]:
            group["weight_decay"] = moving * weight_decay * group.get("weight_decay_factor", 1.0)


def _rate(group: dict, learning_rate: float) -> float:
    if group.get("constant_rate"):
        return group["initial_lr"]
    return group["initial_lr"] * (learning_rate / group["peak_rate"]) if "peak_rate" in group else learning_rate
