"""Projection heads: lightly's blocks, MoCo v3's projector, and DINO's head with a plain weight-normalized last layer."""

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F


class NormalizedLinear(nn.Module):
    """A bias-free linear layer whose rows have unit length (DINO's weight-normalized last layer with fixed gain).

    While `frozen`, the weight's gradient is zero rather than None, which engines would treat differently.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.frozen = False
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(outputs, inputs), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight.detach() + 0 * self.weight if self.frozen else self.weight, dim=-1))


class DINOHead(nn.Module):
    """float[N, inputs] -> logits float[N, prototypes]: three-layer MLP, l2 normalization, `NormalizedLinear`.

    Caron et al., 2021, section 3.1 and appendix C.
    """

    def __init__(self, inputs: int, hidden: int, bottleneck: int, prototypes: int, batch_norm: bool) -> None:
        super().__init__()

        def norm() -> nn.Module | None:
            return nn.BatchNorm1d(hidden) if batch_norm else None

        self.mlp = ProjectionHead(
            [(inputs, hidden, norm(), nn.GELU()), (hidden, hidden, norm(), nn.GELU()), (hidden, bottleneck, None, None)]
        )
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.prototypes = NormalizedLinear(bottleneck, prototypes)

    def forward(self, x: Tensor) -> Tensor:
        return self.prototypes(self.bottleneck(x))

    def bottleneck(self, x: Tensor) -> Tensor:
        """float[..., inputs] -> float[..., bottleneck] with unit length, of which the prototypes' logits are linear."""
        return F.normalize(self.mlp(x), dim=-1)


def moco_v3_projector(inputs: int, hidden: int, outputs: int, layers: int) -> ProjectionHead:
    """MoCo v3's MLP (Chen, Xie & He, 2021): batch normalization everywhere, without affine parameters at the end."""
    blocks = []
    for layer in range(layers):
        first, last = layer == 0, layer == layers - 1
        width = outputs if last else hidden
        norm = nn.BatchNorm1d(width, affine=not last)
        blocks.append((inputs if first else hidden, width, norm, None if last else nn.ReLU(), False))
    return ProjectionHead(blocks)
