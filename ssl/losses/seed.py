"""SEED: the student has the teacher's similarities to a queue of embeddings (Fang et al., 2021, eq. 3-6)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def seed_loss(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
) -> Tensor:
    """Mean cross entropy of the student's soft assignments with the teacher's, over the queue and the image itself.

    student, teacher: float[N, D] with unit rows; queue: float[K, D] of the teacher's earlier embeddings. The image's own
    teacher embedding is the last of the K + 1 anchors (eq. 3). Returns a scalar ≥ 0; the teacher gets no gradient.
    """
    with without_autocast(student):
        s, t, anchors = (full_precision(x) for x in (student, teacher.detach(), queue))

        def logits(x: Tensor, temperature: float) -> Tensor:
            return torch.cat([x @ anchors.T, (x * t).sum(dim=1, keepdim=True)], dim=1) / temperature

        targets = logits(t, teacher_temperature).softmax(dim=1)
        return -(targets * F.log_softmax(logits(s, student_temperature), dim=1)).sum(dim=1).mean()
