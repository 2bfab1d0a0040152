"""DINO: self-distillation with no labels (Caron et al., 2021, eq. 1-4 and algorithm 1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


class DINOLoss(nn.Module):
    """Cross entropy between the centered, sharpened teacher and the student, over all pairs of different views.

    The center C ← m C + (1 − m) mean(teacher logits) (eq. 4) is a buffer that `update_center` moves; the caller passes
    the mean over the *global* batch.
    """

    center: Tensor

    def __init__(self, prototypes: int, student_temperature: float = 0.1, center_momentum: float = 0.9) -> None:
        super().__init__()
        if prototypes < 2:
            raise ValueError(f"prototypes must be at least 2, got {prototypes}")
        if not student_temperature > 0:
            raise ValueError(f"student_temperature must be greater than 0, got {student_temperature}")
        if not 0 <= center_momentum < 1:
            raise ValueError(f"center_momentum must be in [0, 1), got {center_momentum}")
        self.student_temperature, self.center_momentum = student_temperature, center_momentum
        self.register_buffer("center", torch.zeros(prototypes))

    def teacher_probabilities(self, logits: Tensor, temperature: float) -> Tensor:
        """softmax((g − C)/τ_t) of float[…, P] teacher logits, without gradient."""
        with torch.no_grad():
            logits = full_precision(logits)
            return ((logits - self.center.to(logits.dtype)) / temperature).softmax(dim=-1)

    def forward(self, student: Tensor, teacher: Tensor, teacher_temperature: float) -> Tensor:
        """student logits float[S, N, P] and teacher logits float[T, N, P] -> scalar ≥ 0.

        View t of the teacher is the same crop as view t of the student (t < T ≤ S); that pair is excluded (algorithm 1).
        """
        if student.shape[1:] != teacher.shape[1:] or student.shape[0] < max(2, teacher.shape[0]):
            raise ValueError(
                f"student {list(student.shape)} and teacher {list(teacher.shape)} logits do not match: shapes must be "
                "[S, N, P] and [T, N, P] with S ≥ 2 and T ≤ S"
            )
        targets = self.teacher_probabilities(teacher, teacher_temperature)
        return cross_view_entropy(student, targets, self.student_temperature).mean()

    @torch.no_grad()
    def update_center(self, mean_teacher_logits: Tensor) -> None:
        """Move the center towards float[P], the mean of the teacher's logits over the global batch (eq. 4)."""
        self.center.lerp_(mean_teacher_logits.to(self.center.dtype), 1 - self.center_momentum)


def cross_view_entropy(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy over pairs of different views, for each image (eq. 3).

    student: logits float[S, N, P]; targets: the teacher's probabilities float[T, N, P], of the first T of these views;
    returns float[N].
    """
    with without_autocast(student):
        log_student = F.log_softmax(full_precision(student) / temperature, dim=-1)
        entropy = -torch.einsum("tnp,snp->nts", targets, log_student)
        same_crop = torch.eye(*entropy.shape[1:], dtype=torch.bool, device=entropy.device)
        return entropy.masked_fill(same_crop, 0.0).sum(dim=(1, 2)) / (~same_crop).sum()
