"""Batch normalization over the global batch on any device (torch's SyncBatchNorm refuses the CPU)."""

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from wildfern.ssl.models.collectives import all_reduce


class _GlobalBatchNorm:
    """Statistics of all ranks' batches together; each rank must hold the same number of images.

    Mean first, then the mean squared deviation from it, so that the sum over ranks is as exact as on one process.
    """

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


_GLOBAL = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
    BatchNormAct2d: GlobalBatchNormAct2d,
}


def synchronize_batch_norm(model: nn.Module) -> None:
    """Turn every batch normalization inside `model`, in place, into its global form; names of weights stay.

    Raises ValueError for a kind of batch normalization that has no global form here, rather than leave it local.
    """
    for name, module in model.named_modules():
        if type(module) in _GLOBAL:
            module.__class__ = _GLOBAL[type(module)]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, _GlobalBatchNorm):
            raise ValueError(f"{name} is a {type(module).__name__}, which cannot be synchronized between processes")
