"""Regularization of fine-tuning for vision transformers: layer-wise decay, drop path, mixup, CutMix and label smoothing."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from wildfern.ssl.augmentation.mixing import draw_mixing, mix
from wildfern.ssl.models.layer_depth import layer_factors


@dataclass(frozen=True)
class Regularization:
    """Settings of BEiT and MAE (He et al., 2022, table 9: 0.75, 0.1, 0.8, 1.0 and 0.1); the defaults change nothing.

    layer_decay: factor of the learning rate from a layer to the one before it.
    drop_path: of the last block, rising linearly from 0 in the first one; None: as the network was built.
    mixup, cutmix: α of the Beta distribution of the images' shares, 0 for none; if both are given, each mixes half of the images.
    label_smoothing: share of the target that all classes get alike.
    """

    layer_decay: float = 1.0
    drop_path: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        wrong = []
        if not 0 < self.layer_decay <= 1:
            wrong.append(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            wrong.append(f"drop_path must be at least 0 and below 1, got {self.drop_path}")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                wrong.append(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            wrong.append(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")
        if wrong:
            raise ValueError("; ".join(wrong))

    def describe(self) -> str:
        """The settings that differ from the defaults, for the description of a protocol; empty if none does."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(Regularization, name)}
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in changed.items())

    def optimizer_groups(
        self, backbone: nn.Module, head: nn.Module, weight_decay: float, head_rate: float = 1.0
    ) -> list[dict]:
        """Weight decay for matrices and kernels, none for biases and normalization; `lr_factor` follows the layers' depth.

        That of the head is `head_rate`. Raises ValueError for layer decay in a network of unknown order.
        """
        factors = layer_factors(backbone, self.layer_decay) if self.layer_decay != 1 else {}
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in backbone.named_parameters():
            groups.setdefault((factors.get(name, 1.0), parameter.ndim > 1), []).append(parameter)
        for parameter in head.parameters():
            groups.setdefault((head_rate, parameter.ndim > 1), []).append(parameter)
        return [
            {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "lr_factor": factor}
            for (factor, decays), parameters in groups.items()
        ]

    def set_drop_path(self, backbone: nn.Module) -> None:
        """Give the blocks of a transformer their drop path (Huang et al., 2016). ValueError for a network without such blocks."""
        if self.drop_path is None:
            return
        blocks = [module for module in backbone.modules() if hasattr(module, "drop_path1")]
        if not blocks:
            raise ValueError(
                "drop_path needs a vision transformer of timm: leave it out, or set model.arguments.drop_path_rate of the network"
            )
        for index, block in enumerate(blocks):
            rate = self.drop_path * index / max(1, len(blocks) - 1)
            block.drop_path1, block.drop_path2 = (DropPath(rate) if rate else nn.Identity() for _ in range(2))

    def mixed(self, images: Tensor, targets: Tensor, classes: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Images and targets of a batch mixed with others of it, or both as they are without mixup and CutMix."""
        if not self.mixup and not self.cutmix:
            return images, targets
        table = draw_mixing(
            seed, step, np.arange(len(images)), 0, group=len(images), mixup_alpha=self.mixup, cutmix_alpha=self.cutmix
        )
        return mix(images, targets, table, classes)

    def loss(self, logits: Tensor, targets: Tensor, multi_label: bool) -> Tensor:
        """Cross entropy with smoothed labels, or binary cross entropy with several labels for each image."""
        if multi_label:
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
