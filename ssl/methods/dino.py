"""DINO (Caron et al., 2021): from any crop, a student predicts a momentum teacher's output for the global crops."""

from math import log
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor

from wildfern.registry import register
from wildfern.ssl.losses import DINOLoss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Fraction, Method, Needs, Positive
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.methods.prototype_teacher import prototype_metrics, warmed_up
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import DINOHead
from wildfern.ssl.models.teacher import cosine_momentum


@register("method", "dino")
class DINO(Method):
    """Two global views go to teacher and student, local views to the student alone (algorithm 1).

    The teacher's temperature rises linearly over the share `teacher_temperature_warmup` of the run; the last layer is
    frozen for the share `freeze_last_layer`; the teacher's momentum rises to 1 by a cosine schedule. The teacher's backbone is
    evaluated.
    """

    _mean: Tensor  # of the teacher's logits in the parts so far

    needs = Needs(views=(2, None), full_size_views=2, float32_views=False)
    usual = Usual(
        "Caron et al., 2021, section 3.2", optimizers=("adamw",), only_transformers=True, warmup=True, weight_decay=True
    )

    if_collapsed = (
        "a lower method.teacher_temperature, a method.momentum closer to 1, a longer schedule.warmup, or "
        "method.freeze_last_layer"
    )

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        prototypes: Annotated[int, Field(ge=2)] = 65536,
        head_hidden: Count = 2048,
        head_bottleneck: Count = 256,
        head_batch_norm: bool = False,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.04,
        teacher_temperature_start: Positive = 0.04,
        teacher_temperature_warmup: Fraction = 0.0,
        center_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        momentum: Annotated[float, Field(ge=0, le=1)] = 0.996,
        freeze_last_layer: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = DINOHead(backbone.width, head_hidden, head_bottleneck, prototypes, head_batch_norm)
        self.loss = DINOLoss(prototypes, student_temperature, center_momentum)
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "head"), lambda step: cosine_momentum(momentum, step, total_steps)
        )
        warmup_steps = teacher_temperature_warmup * total_steps
        self.temperatures = (teacher_temperature_start, teacher_temperature, warmup_steps)
        self.frozen_steps = freeze_last_layer * total_steps

    def teacher_temperature(self, step: int) -> float:
        """Linear from start to end over the warm-up, then constant."""
        return warmed_up(*self.temperatures, step)

    def forward(self, batch: Batch) -> Output:
        self.head.prototypes.frozen = batch.step < self.frozen_steps
        embeddings, features = self.encode(self.head.bottleneck, batch.views)
        student = self.head.prototypes(embeddings)
        teacher = full_precision(self.teacher(batch.views[0].flatten(0, 1))).unflatten(0, (2, -1))
        temperature = self.teacher_temperature(batch.step)
        loss = self.loss(student, teacher, temperature)
        with torch.no_grad():
            metrics = prototype_metrics(self.loss.teacher_probabilities(teacher, temperature), student)
            if self.training:
                self._move_center(teacher.mean(dim=(0, 1)), batch)
        return Output(loss, metrics | {"center_norm": self.loss.center.norm()}, features, embeddings[:2].detach())

    def collapsed_loss(self, images: int) -> float:
        return log(len(self.loss.center))

    def _move_center(self, mean: Tensor, batch: Batch) -> None:
        """Move the center once per step, after its last part, so that all parts of the batch have the same one."""
        self._mean = mean if batch.part == 0 else self._mean.lerp(mean, 1 / (batch.part + 1))
        if batch.part == batch.parts - 1:
            self.loss.update_center(mean_over_ranks(self._mean))

    def eval_backbone(self) -> Backbone:
        return cast(Backbone, self.teacher.module.get_submodule("0"))
