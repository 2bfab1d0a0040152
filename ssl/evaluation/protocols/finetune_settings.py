"""Settings of fine-tuning: the optimizer, what defines a whole fine-tuning, and its description."""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wildfern.ssl.evaluation.protocols.finetune_augmentation import FinetuneAugmentation
from wildfern.ssl.evaluation.protocols.finetune_regularization import Regularization

HOLDOUT = 0.2


@dataclass(frozen=True)
class Optimization:
    """Settings of the optimizer; the learning rate is that of `FinetuneSettings`. ValueError for impossible ones.

    warmup: share of the steps in which the learning rate rises linearly, before its cosine to 0.
    momentum, nesterov: of SGD.
    head_rate: factor of the learning rate of the new head (Anderson & Farrell, 2022, train theirs with 10).
    ema_decay: decay of an exponential moving average of the weights, which is scored in their place; None: none. Buffers, such
    as the statistics of batch normalization, are copied. With `ema_warmup` update t has the decay 1 - t^(-2/3), if that is less.
    """

    epochs: int = 10
    batch_size: int = 128
    weight_decay: float = 0.05
    warmup: float = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    nesterov: bool = False
    head_rate: float = 1.0
    ema_decay: float | None = None
    ema_warmup: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not 0 <= self.weight_decay < math.inf or not 0 <= self.warmup < 1:
            raise ValueError(
                "fine-tuning needs epochs >= 1, batch_size >= 1, weight_decay >= 0 and a warmup in [0, 1); got "
                f"{self.epochs}, {self.batch_size}, {self.weight_decay} and {self.warmup}"
            )
        if self.optimizer not in ("adamw", "sgd"):
            raise ValueError(f"optimizer is adamw or sgd, got {self.optimizer!r}")
        if self.optimizer == "adamw" and (self.nesterov or self.momentum != type(self).momentum):
            raise ValueError("momentum and nesterov are for optimizer sgd, and this one is adamw")
        if not 0 <= self.momentum < 1 or (self.nesterov and not self.momentum):
            raise ValueError(f"momentum must be at least 0 and below 1, and above 0 for nesterov; got {self.momentum}")
        if not 0 < self.head_rate < math.inf:
            raise ValueError(f"head_rate is a positive factor of the learning rate, got {self.head_rate}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be above 0 and below 1, for example 0.999, got {self.ema_decay}")
        if self.ema_warmup and self.ema_decay is None:
            raise ValueError("ema_warmup has no effect without ema_decay, for example 0.999")

    def build(self, groups: list[dict], learning_rate: float) -> torch.optim.Optimizer:
        """The optimizer of the groups of `Regularization.optimizer_groups`."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=learning_rate)
        return torch.optim.SGD(groups, lr=learning_rate, momentum=self.momentum, nesterov=self.nesterov)

    def describe(self) -> str:
        """The settings that differ from the defaults, other than epochs, optimizer and weight decay; empty if none does."""
        words = {
            "batch_size": f"batches of {self.batch_size}",
            "warmup": f"warm-up {self.warmup:g}",
            "head_rate": f"rate of the head × {self.head_rate:g}",
        }
        found = [text for name, text in words.items() if getattr(self, name) != getattr(Optimization, name)]
        if self.ema_decay is not None:
            found.append(f"weights averaged with decay {self.ema_decay:g}{', warmed up' if self.ema_warmup else ''}")
        return ", ".join(found)

    @property
    def name(self) -> str:
        """The optimizer in words."""
        if self.optimizer == "adamw":
            return "AdamW"
        return f"SGD with {'Nesterov ' if self.nesterov else ''}momentum {self.momentum:g}"


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that defines a fine-tuning. Raises ValueError for impossible learning rates and hold-outs."""

    learning_rate: float | tuple[float, ...]
    holdout: float
    optimization: Optimization
    augmentation: FinetuneAugmentation
    regularization: Regularization
    seed: int

    def __post_init__(self) -> None:
        if not self.rates or any(not 0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"learning_rate is a positive number, or several to choose from; got {self.learning_rate}")
        if not 0 < self.holdout <= 0.5:
            raise ValueError(f"holdout is a share of train in (0, 0.5], got {self.holdout}")
        if len(self.rates) == 1 and self.holdout != HOLDOUT:
            raise ValueError("holdout has no effect with one learning_rate: give several to choose from")

    @property
    def rates(self) -> tuple[float, ...]:
        """The different learning rates, the lowest first."""
        given = self.learning_rate
        return tuple(sorted(set(given))) if isinstance(given, (tuple, list)) else (float(given),)

    @property
    def parts(self) -> int:
        """The number of parts of train, of which one is held out."""
        return max(2, round(1 / self.holdout))

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        """Raises ValueError for a network without the layers that the settings need, or images that are too small."""
        self.augmentation.check_size(size)
        if self.regularization.drop_path is not None or self.regularization.layer_decay != 1.0:
            model = copy.deepcopy(backbone)
            self.regularization.set_drop_path(model)
            self.regularization.optimizer_groups(model, nn.Linear(1, 1), 0.0)

    def describe(self, size: int | None = None) -> str:
        """The protocol in one sentence; `size` of the images in pixels, if it is known."""
        settings, rates = self.optimization, self.rates
        rate = f"rate {rates[0]:g}"
        if len(rates) > 1:
            numbers = ", ".join(f"{one:g}" for one in rates)
            rate = f"rate chosen of {numbers} on a held-out {1 / self.parts:.0%} of train"
        words = [
            settings.name,
            rate,
            f"weight decay {settings.weight_decay:g}",
            "cosine",
            self.augmentation.describe(size),
        ]
        words += [further for further in (settings.describe(), self.regularization.describe()) if further]
        epochs = f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}"
        return (
            f"all weights fine-tuned for {epochs} on all of train ({', '.join(words)}), accuracy after the last epoch"
        )
