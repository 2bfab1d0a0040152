"""DINO (Caron et al., 2021): a student predicts, from any crop, what a slowly moving teacher says of the whole image."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from wildfern.ssl.losses import DINOLoss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Fraction, Method, Positive, Scalars
from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.models.heads import DINOHead
from wildfern.ssl.models.teacher import Gather, MomentumTeacher, cosine_momentum, whole


class DINO(Method):
    """Two global views go to teacher and student, local views to the student alone (algorithm 1).

    The teacher's temperature rises linearly over the share `teacher_temperature_warmup` of the run; the last layer stands
    still for the share `freeze_last_layer` of it; the teacher's momentum follows a cosine to 1.
    Evaluation takes the teacher's backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
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
        self.teacher = MomentumTeacher(nn.Sequential(backbone, self.head))
        warmup_steps = teacher_temperature_warmup * total_steps
        self.temperatures = (teacher_temperature_start, teacher_temperature, warmup_steps)
        self.momentum, self.frozen_steps, self.total_steps = momentum, freeze_last_layer * total_steps, total_steps

    @staticmethod
    def check_views(shape: list[tuple[int, int]]) -> None:
        if shape[0][0] != 2:
            raise ValueError(f"DINO takes two views of full size (views: multicrop), got {shape[0][0]}")

    def teacher_temperature(self, step: int) -> float:
        """Linear from start to end over the warm-up, then constant."""
        start, end, warmup = self.temperatures
        return end if step >= warmup else start + (end - start) * step / warmup

    def forward(self, views: list[Tensor], step: int) -> tuple[Tensor, Scalars]:
        self.head.prototypes.frozen = step < self.frozen_steps
        student = self.encode(self.head, views)
        teacher = full_precision(self.teacher(views[0].flatten(0, 1))).unflatten(0, (2, -1))
        temperature = self.teacher_temperature(step)
        loss = self.loss(student, teacher, temperature)
        with torch.no_grad():
            p = self.loss.teacher_probabilities(teacher, temperature)
            entropy = -(p * p.clamp_min(1e-12).log()).sum(-1).mean()
            agreement = (student[:2].argmax(-1) == teacher.flip(0).argmax(-1)).float().mean()
            if self.training:
                self.loss.update_center(mean_over_ranks(teacher.mean(dim=(0, 1))))
        scalars = {"teacher_entropy": entropy, "agreement": agreement, "center_norm": self.loss.center.norm()}
        return loss, scalars

    def after_step(self, step: int, gather: Gather = whole) -> None:
        student = nn.Sequential(self.backbone, self.head)
        self.teacher.update(student, cosine_momentum(self.momentum, step, self.total_steps), gather)

    def teachers(self) -> dict[str, nn.Module]:
        return {"teacher": self.teacher.module}

    def eval_backbone(self) -> nn.Module:
        return self.teacher.module[0]
