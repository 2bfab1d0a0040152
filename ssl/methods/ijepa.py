"""I-JEPA (Assran et al., 2023): from part of an image, predicts a momentum teacher's tokens of other parts."""

from typing import Annotated, cast

import torch
from pydantic import Field
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.multi_block_masks import block_sizes, draw_sizes, multi_block_draws, multi_block_masks
from wildfern.ssl.methods.patches import images_of_patches, patch_grid, take
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.teacher import linear_momentum

Share = Annotated[float, Field(gt=0, le=1)]
Aspect = Annotated[float, Field(gt=0)]


class Predictor(nn.Module):
    """A narrow vision transformer: tokens of the context and mask tokens at the places of a target block (section 3)."""

    position: Tensor

    def __init__(self, inputs: int, grid: tuple[int, int], width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer("position", build_sincos2d_pos_embed(list(grid), width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, inputs)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """float[N, B, M, D] for B blocks of M patches, from tokens float[N, K, D] of the patches `context` int64[N, K]."""
        n, count, patches = targets.shape
        embedded = self.embed(tokens)
        seen = embedded + self.position[context].to(embedded.dtype)
        asked = (self.mask_token + self.position[targets]).to(embedded.dtype)
        sequences = torch.cat([seen[:, None].expand(-1, count, -1, -1), asked], dim=2).flatten(0, 1)
        return self.project(self.norm(self.blocks(sequences)[:, -patches:])).unflatten(0, (n, count))


@register("method", "ijepa")
class IJEPA(Method):
    """The backbone encodes a context block; a predictor gives the teacher's tokens of `targets` other blocks (section 3).

    The teacher sees the whole image; its tokens are layer-normalized. Loss: smooth L1, as in the authors' code; the paper states
    the squared distance. Blocks are functions of image and step, independent of ranks and resuming: see `multi_block_masks`.
    The teacher's momentum rises linearly to 1, and its backbone is evaluated: pool by the average of tokens. One or more views
    of one size, only cropped.
    """

    needs = Needs(views=(1, None), float32_views=False)
    usual = Usual("Assran et al., 2023, appendix A.1", optimizers=("adamw",), warmup=True, weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        targets: Count = 4,
        target_scale: tuple[Share, Share] = (0.15, 0.2),
        target_aspect: tuple[Aspect, Aspect] = (0.75, 1.5),
        context_scale: tuple[Share, Share] = (0.85, 1.0),
        predictor_width: Annotated[int, Field(ge=4, multiple_of=4)] = 384,
        predictor_depth: Count = 12,
        predictor_heads: Count = 12,
        momentum: Annotated[float, Field(ge=0, le=1)] = 0.996,
    ) -> None:
        super().__init__()
        _, self.grid = patch_grid("I-JEPA", backbone)
        if predictor_width % predictor_heads:
            raise ValueError(
                f"predictor_width {predictor_width} must be a multiple of predictor_heads {predictor_heads}"
            )
        ranges = {"target_scale": target_scale, "target_aspect": target_aspect, "context_scale": context_scale}
        if wrong := [f"{name} {list(ends)}" for name, ends in ranges.items() if ends[0] > ends[1]]:
            raise ValueError(f"{' and '.join(wrong)}: the first number must not be greater than the second")
        for aspect in (*target_aspect, 1.0):  # the largest targets leave the least context
            block_sizes(self.grid, targets, target_scale[1], aspect, context_scale[0])
        self.backbone, self.targets, self.ranges = backbone, targets, tuple(ranges.values())
        self.predictor = Predictor(backbone.width, self.grid, predictor_width, predictor_depth, predictor_heads)
        self.teacher = self.add_teacher(
            "teacher", ["backbone"], lambda step: linear_momentum(momentum, step, total_steps)
        )

    def forward(self, batch: Batch) -> Output:
        images, views, n = images_of_patches("I-JEPA", batch, self.backbone), len(batch.views[0]), len(batch)
        sizes = draw_sizes(batch.seed, batch.step, self.grid, self.targets, *self.ranges)
        draws = batch.uniform("ijepa blocks", views, multi_block_draws(self.grid, self.targets))
        blocks = multi_block_masks(draws.transpose(0, 1).flatten(0, 1), self.grid, self.targets, sizes)
        tokens = self.backbone.tokens(images, blocks.context).patches
        prediction = full_precision(self.predictor(tokens, blocks.context, blocks.targets))
        with torch.no_grad():
            seen = full_precision(self.eval_backbone().tokens(images).patches)
            target = take(F.layer_norm(seen, seen.shape[-1:]), blocks.targets.flatten(1)).view_as(prediction)
            target_std = (
                target.flatten(1, 2).std(dim=1, correction=0).mean()
            )  # between patches of an image; 0 on collapse
        loss = F.smooth_l1_loss(prediction, target)
        metrics = {"target_std": target_std, "context_patches": torch.tensor(float(sizes.visible))}
        return Output(loss, metrics, seen[:n].mean(dim=1))

    def eval_backbone(self) -> Backbone:
        return cast(Backbone, self.teacher.module.get_submodule("0"))
