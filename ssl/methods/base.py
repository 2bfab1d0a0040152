"""What a method is: heads, teacher and loss around a backbone, behind two calls."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from wildfern.ssl.models.teacher import whole

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

Scalars = dict[str, Tensor]


class Method(nn.Module):
    """A self-supervised objective. Everything registered as a sub-module is optimized; the teacher is not registered.

    Constructors take the backbone and `total_steps` by position and their own settings by keyword.
    """

    backbone: nn.Module
    features: Tensor | None = None  # float[n, F] of the first views in the last forward pass, detached (see `encode`)

    @staticmethod
    def check_views(shape: list[tuple[int, int]]) -> None:
        """Raise ValueError, in the user's words, if views of this shape ([(number, size) per group]) do not fit."""
        if sum(count for count, _ in shape) < 2:
            raise ValueError("at least two views of each image are needed")

    def forward(self, views: list[Tensor], step: int) -> tuple[Tensor, Scalars]:
        """views float[V, n, 3, S, S] per group, n this rank's images -> (scalar loss, scalars to log).

        The mean over ranks of the returned loss is the loss of the global batch, and so is its gradient.
        """
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def encode(self, head: nn.Module, views: list[Tensor]) -> Tensor:
        """Backbone once per resolution, head once over all views: float[V, n, D], V over all groups in order.

        Leaves what the backbone says of the first views in `features`, for whoever looks on.
        """
        images = views[0].shape[1]
        head_inputs = torch.cat([self.backbone(group.flatten(0, 1)) for group in views])
        self.features = head_inputs[:images].detach()
        return head(head_inputs).unflatten(0, (-1, images))

    def after_step(self, step: int, gather: Callable[[Iterable[nn.Parameter]], AbstractContextManager] = whole) -> None:
        """Called after the optimizer's step number `step`: move teachers here."""

    def teachers(self) -> dict[str, nn.Module]:
        """Networks outside the optimizer that a checkpoint must hold, by name."""
        return {}

    def eval_backbone(self) -> nn.Module:
        """The backbone that evaluation and export take (the teacher's, where the paper evaluates the teacher)."""
        return self.backbone


@torch.no_grad()
def embedding_std(z: Tensor) -> Tensor:
    """Standard deviation of unit embeddings float[V, N, D] times √D: 1 when spread over the sphere, 0 on collapse."""
    return z.detach().float()[0].std(dim=0).mean() * z.shape[-1] ** 0.5
