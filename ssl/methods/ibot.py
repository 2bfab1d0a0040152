"""iBOT (Zhou et al., 2022): DINO on class tokens, and on masked patches the teacher's tokens of the whole image."""

from math import log
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from wildfern.registry import register
from wildfern.ssl.losses import DINOLoss, masked_token_loss
from wildfern.ssl.losses.dino import cross_view_entropy
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Fraction, Method, Needs, NotNegative, Positive
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.methods.masked_patches import MaskedPatches, check_patches, masked_patches
from wildfern.ssl.methods.prototype_teacher import prototype_metrics, prototype_use, warmed_up
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import DINOHead
from wildfern.ssl.models.teacher import cosine_momentum


@register("method", "ibot")
class IBOT(Method):
    """The loss of DINO, and that of predicting the teacher's patch tokens where the student sees a mask token (section 3.1).

    One head for both. With probability `mask_probability`, a share of a global view's patches is masked in blocks; it is drawn
    uniformly from `mask_ratio` ± `mask_ratio_variation`. The loss of patches is the mean over an image's masked patches, then
    over all images, masked or not. Two centers, of class and patch tokens, move once per step. The teacher's backbone is
    evaluated.
    """

    _means: Tensor  # of the teacher's logits of class and patch tokens in the parts so far

    needs = Needs(views=(2, None), full_size_views=2, float32_views=False)
    usual = Usual("Zhou et al., 2022, section 4.1", optimizers=("adamw",), warmup=True, weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        prototypes: Annotated[int, Field(ge=2)] = 8192,
        head_hidden: Count = 2048,
        head_bottleneck: Count = 256,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        teacher_temperature_start: Positive = 0.04,
        patch_temperature: Positive = 0.07,
        patch_temperature_start: Positive = 0.04,
        teacher_temperature_warmup: Fraction = 0.0375,
        center_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        momentum: Fraction = 0.996,
        mask_probability: Fraction = 0.5,
        mask_ratio: Annotated[float, Field(gt=0, le=1)] = 0.3,
        mask_ratio_variation: Fraction = 0.2,
        patch_weight: NotNegative = 1.0,
        freeze_last_layer: Fraction = 0.0,
    ) -> None:
        super().__init__()
        check_patches(backbone, "iBOT")
        self.ratios = (mask_ratio - mask_ratio_variation, mask_ratio + mask_ratio_variation)
        if self.ratios[0] < 0 or self.ratios[1] > 1:
            raise ValueError(
                f"mask_ratio {mask_ratio} ± mask_ratio_variation {mask_ratio_variation} must be between 0 and 1"
            )
        self.backbone = backbone
        self.head = DINOHead(backbone.width, head_hidden, head_bottleneck, prototypes, batch_norm=False)
        self.mask_token = nn.Parameter(torch.zeros(backbone.width))
        self.class_loss = DINOLoss(prototypes, student_temperature, center_momentum)
        self.patch_loss = DINOLoss(prototypes, student_temperature, center_momentum)
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "head"), lambda step: cosine_momentum(momentum, step, total_steps)
        )
        warmup = teacher_temperature_warmup * total_steps
        self.temperatures = (teacher_temperature_start, teacher_temperature, warmup)
        self.patch_temperatures = (patch_temperature_start, patch_temperature, warmup)
        self.mask_probability, self.patch_weight = mask_probability, patch_weight
        self.frozen_steps = freeze_last_layer * total_steps

    def forward(self, batch: Batch) -> Output:
        self.head.prototypes.frozen = batch.step < self.frozen_steps
        hidden = masked_patches(batch, "ibot", cast(int, self.backbone.patch_size), self.mask_probability, self.ratios)
        class_probabilities, patch_probabilities, features = self._teacher_outputs(batch, hidden)
        n, temperature = len(batch), self.class_loss.student_temperature

        tokens = self.backbone.tokens(batch.views[0].flatten(0, 1), masked=hidden.mask, mask_token=self.mask_token)
        smaller = [self.backbone(group.flatten(0, 1)) for group in batch.views[1:]]
        classes, patches = torch.cat([self.backbone.pool(tokens), *smaller]), hidden.take(tokens.patches)
        student = self.head(torch.cat([classes, patches.flatten(0, 1)]))  # in one call
        student, student_patches = student.split([len(classes), patches.shape[0] * patches.shape[1]])
        student = student.unflatten(0, (-1, n))
        weights = hidden.weights.unflatten(0, (2, n))
        class_loss = cross_view_entropy(student, class_probabilities, temperature).mean()
        patch_loss = masked_token_loss(
            student_patches.unflatten(0, (2, n, -1)), patch_probabilities, weights, temperature
        ).mean()
        metrics = prototype_metrics(class_probabilities, student.detach()) | {
            "class_loss": class_loss.detach(),
            "patch_loss": patch_loss.detach(),
            "patch_prototype_use": prototype_use(patch_probabilities),
            "center_norm": self.class_loss.center.norm(),
        }
        embeddings = classes[: 2 * n].detach().unflatten(0, (2, n))
        return Output(class_loss + self.patch_weight * patch_loss, metrics, features, embeddings)

    @torch.no_grad()
    def _teacher_outputs(self, batch: Batch, hidden: MaskedPatches) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities float[2, n, P] of class tokens and float[2, n, K, P] of patches, and float[n, F] of the first view."""
        backbone, head = cast("tuple[Backbone, DINOHead]", self.teacher.module)
        n = len(batch)
        tokens = backbone.tokens(batch.views[0].flatten(0, 1))
        classes, patches = backbone.pool(tokens), head.bottleneck(tokens.patches)
        logits = full_precision(head(classes)).unflatten(0, (2, n))
        patch_logits = full_precision(head.prototypes(hidden.take(patches))).unflatten(0, (2, n))
        found = (
            self.class_loss.teacher_probabilities(logits, warmed_up(*self.temperatures, batch.step)),
            self.patch_loss.teacher_probabilities(patch_logits, warmed_up(*self.patch_temperatures, batch.step)),
            classes[:n],
        )
        if self.training:
            # The mean of logits is the logit of the mean, over all patches as in the paper's code.
            all_patches = full_precision(head.prototypes(patches.mean(dim=(0, 1))))
            self._move_centers(torch.stack([logits.mean(dim=(0, 1)), all_patches]), batch)
        return found

    def _move_centers(self, means: Tensor, batch: Batch) -> None:
        """Move both centers once per step, after its last part."""
        self._means = means if batch.part == 0 else self._means.lerp(means, 1 / (batch.part + 1))
        if batch.part == batch.parts - 1:
            for loss, mean in zip((self.class_loss, self.patch_loss), mean_over_ranks(self._means), strict=True):
                loss.update_center(mean)

    def collapsed_loss(self, images: int) -> float:
        return (1 + self.patch_weight * self.mask_probability) * log(len(self.class_loss.center))

    def eval_backbone(self) -> Backbone:
        return cast(Backbone, self.teacher.module.get_submodule("0"))
