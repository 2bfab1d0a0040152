"""SEED: the student has the teacher's similarities to a queue of embeddings (Fang et al., 2021, eq. 3-6)."""

from torch import Tensor

from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.log_sum_exp import log_sum_exp, softmax_mean
from wildfern.ssl.losses.row_blocks import images_of


def seed_loss(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
    *,
    rows: slice | None = None,
) -> Tensor:
    """Mean cross entropy of the student's soft assignments with the teacher's, over the queue and the image itself.

    student, teacher: float[N, D] with unit rows; queue: float[K, D] of the teacher's earlier embeddings. The image's own
    teacher embedding is the last of the K + 1 anchors (eq. 3). Returns a scalar ≥ 0; the teacher gets no gradient. With `rows`,
    the summands of these images alone: the parts over any division of the images have the sum of the loss.

    As the targets have the sum 1, the cross entropy is log Σ_j exp(s·a_j/τ) − s·a/τ with the mean a of the anchors a_j, weighted
    by the targets: memory grows with N and K, not with N·K.
    """
    with without_autocast(student):
        own = images_of(rows, len(student))
        s, t, anchors = full_precision(student)[own], full_precision(teacher.detach())[own], full_precision(queue)
        target = softmax_mean(t, anchors, 1 / teacher_temperature, further=t)
        log_denominators = log_sum_exp(s, anchors, 1 / student_temperature, further=t)
        return (log_denominators - (s * target).sum() / student_temperature) / len(student)
