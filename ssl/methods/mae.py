"""MAE (He et al., 2022): encodes a small part of an image's patches and reconstructs the pixels of the hidden ones."""

from math import prod
from typing import Annotated

import torch
from pydantic import Field
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.patches import images_of_patches, patch_grid, patchify, take
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "mae")
class MAE(Method):
    """A vision transformer encodes the visible patches; a small transformer predicts the hidden ones (section 3).

    Loss: mean squared error over hidden patches, each normalized by its own mean and variance (`normalize_pixels`). Hidden
    patches are a function of image and step, independent of ranks and resuming. One or more views of one size; mild crops
    without color jitter work best (section 4.1). Fine-tune the backbone, or probe its averaged tokens.
    """

    needs = Needs(views=(1, None), float32_views=True)
    usual = Usual("He et al., 2022, appendix A.1", optimizers=("adamw",), warmup=True, weight_decay=True, beta2=0.95)

    position: Tensor

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75,
        decoder_width: Annotated[int, Field(ge=4, multiple_of=4)] = 512,
        decoder_depth: Count = 8,
        decoder_heads: Count = 16,
        normalize_pixels: bool = True,
    ) -> None:
        super().__init__()
        self.patch, grid = patch_grid("MAE", backbone)
        if prod(grid) < 2:
            raise ValueError(
                "mae hides some patches and shows others, but the backbone has one patch: use smaller patches"
            )
        if decoder_width % decoder_heads:
            raise ValueError(f"decoder_width {decoder_width} must be a multiple of decoder_heads {decoder_heads}")
        self.backbone = backbone
        self.mask_ratio, self.normalize_pixels = mask_ratio, normalize_pixels
        self.embed = nn.Linear(backbone.width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(decoder_width))
        nn.init.normal_(self.mask_token, std=0.02)
        position = build_sincos2d_pos_embed(list(grid), decoder_width)
        self.register_buffer("position", position, persistent=False)
        self.blocks = nn.Sequential(*(Block(decoder_width, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)))
        self.predict = nn.Sequential(
            nn.LayerNorm(decoder_width), nn.Linear(decoder_width, self.patch**2 * backbone.in_chans)
        )
        for module in (self.embed, *self.blocks.modules(), *self.predict.modules()):
            if isinstance(module, nn.Linear):  # appendix A.1
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> Output:
        views, n = batch.views[0], len(batch)
        images = images_of_patches("MAE", batch, self.backbone)
        patches = patchify(images, self.patch)
        count = patches.shape[1]
        order = batch.uniform("mae mask", len(views), count).argsort(dim=-1, stable=True).transpose(0, 1).flatten(0, 1)
        visible = min(count - 1, max(1, round(count * (1 - self.mask_ratio))))  # at least one is hidden
        keep, hidden = order[:, :visible], order[:, visible:]
        tokens = self.backbone.tokens(images, keep).patches
        prediction = self._decode(tokens, keep, hidden)
        target = take(patches, hidden).float()
        if self.normalize_pixels:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        loss = (full_precision(prediction) - target).square().mean()
        return Output(loss, {}, tokens[:n].mean(dim=1).detach())

    def _decode(self, tokens: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """float[N, H, P·P·C] for the H hidden patches, from tokens float[N, K, D] of the visible ones."""
        embedded = self.embed(tokens)
        masked = self.mask_token.to(embedded.dtype).expand(*hidden.shape, -1)
        place = self.position[torch.cat([keep, hidden], dim=1)].to(embedded.dtype)
        return self.predict(self.blocks(torch.cat([embedded, masked], dim=1) + place)[:, keep.shape[1] :])
