"""Batch normalization over the global batch: torch's fused SyncBatchNorm on GPUs, an own implementation on CPUs."""

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, nn

from wildfern.ssl.models.collectives import all_reduce


class _GlobalBatchNorm:
    """Statistics of all ranks' batches together; each rank must hold the same number of images.

    First the mean over ranks, then the mean squared deviation from it: numerically as exact as on one process.
    """

    # Those of torch's batch normalization, which the classes below have as their other parent.
    training: bool
    affine: bool
    eps: float
    momentum: float | None
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def _normalize(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        dtype, x = x.dtype, x if x.dtype is torch.float64 else x.float()
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.numel() // x.shape[1] * torch.distributed.get_world_size()
        mean = all_reduce(x.sum(dims)) / count
        centered = x - mean.view(shape)
        variance = all_reduce(centered.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
        y = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(dtype)


class GlobalBatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` over all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        return self._normalize(x)


class GlobalBatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        return self._normalize(x)


class GlobalBatchNormAct2d(_GlobalBatchNorm, BatchNormAct2d):
    """timm's `BatchNormAct2d` over all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(self._normalize(x)))


class FusedBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm in place of an existing batch normalization; compiled networks call it without tracing."""

    process_group = None  # all ranks; changing `__class__` does not run SyncBatchNorm's constructor

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class FusedBatchNormAct2d(SyncBatchNormAct):
    """timm's variant of torch's SyncBatchNorm, with dropout and activation, in place of a `BatchNormAct2d`."""

    process_group = None

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


ON_GPU = {nn.BatchNorm1d: FusedBatchNorm, nn.BatchNorm2d: FusedBatchNorm, BatchNormAct2d: FusedBatchNormAct2d}
ON_CPU = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
    BatchNormAct2d: GlobalBatchNormAct2d,
}


def synchronize_batch_norm(model: nn.Module, device_type: str | None = None) -> None:
    """Convert every batch normalization inside `model`, in place, to one over all ranks; names of weights do not change.

    `device_type` is that of the model, by default that of its parameters. On `cuda` torch's kernels are used.
    Raises ValueError for a batch normalization that cannot be converted, rather than leave it local.
    """
    if device_type is None:
        device_type = next((p.device.type for p in model.parameters()), "cpu")
    classes = ON_GPU if device_type == "cuda" else ON_CPU
    synchronized = tuple({*ON_GPU.values(), *ON_CPU.values()})
    for name, module in model.named_modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, synchronized):
            raise ValueError(f"{name} is a {type(module).__name__}, which cannot be synchronized between processes")
