"""SimMIM (Xie et al., 2022): a mask token replaces hidden patches, and one linear layer predicts their pixels."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.patch_masks import cell_masks
from wildfern.ssl.methods.patches import images_of_patches, patch_grid, patchify
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "simmim")
class SimMIM(Method):
    """A vision transformer gets visible patches and mask tokens; a linear layer predicts the hidden pixels (section 3).

    Loss: mean absolute error over the hidden pixels. Square cells of `mask_size` pixels are hidden, a share `mask_ratio` of them
    in each image; which ones is a function of image and step, independent of ranks and resuming. One or more views of one size;
    mild crops without color jitter. Fine-tune the backbone, or probe its averaged tokens.
    """

    needs = Needs(views=(1, None), float32_views=True)
    usual = Usual("Xie et al., 2022, section 4.1", optimizers=("adamw",), warmup=True, weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6,
        mask_size: Count = 32,
    ) -> None:
        super().__init__()
        self.patch, self.grid = patch_grid("SimMIM", backbone)
        if mask_size % self.patch or any(side * self.patch % mask_size for side in self.grid):
            sides = " × ".join(str(side * self.patch) for side in self.grid)
            raise ValueError(
                f"mask_size {mask_size} must be a multiple of the backbone's patches of {self.patch} px and divide its images of "
                f"{sides} px"
            )
        self.backbone = backbone
        self.mask_ratio, self.cell = mask_ratio, mask_size // self.patch
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(backbone.width), std=0.02))
        self.predict = nn.Linear(backbone.width, self.patch**2 * backbone.in_chans)

    def forward(self, batch: Batch) -> Output:
        images, views = images_of_patches("SimMIM", batch, self.backbone), len(batch.views[0])
        cells = math.prod(self.grid) // self.cell**2
        uniform = batch.uniform("simmim mask", views, cells).transpose(0, 1).flatten(0, 1)
        masked = cell_masks(uniform, self.grid, self.cell, self.mask_ratio)
        tokens = self.backbone.tokens(images, masked=masked, mask_token=self.mask_token).patches
        errors = (full_precision(self.predict(tokens)) - patchify(images, self.patch)).abs().mean(dim=-1)
        loss = (errors * masked).sum() / masked.sum()  # every image has as many hidden patches
        return Output(loss, {}, tokens[: len(batch)].mean(dim=1).detach())
