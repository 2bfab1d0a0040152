"""Masked image modeling with an online tokenizer (iBOT: Zhou et al., 2022, eq. 2)."""

from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def masked_token_loss(student: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Cross entropy of masked patches with the teacher's probabilities, for each image; float[V, N, K, P] -> float[N].

    student: logits of the K patches of each view that may be masked; targets: probabilities of the same patches in the image
    without mask; weights: float[V, N, K], 1 for masked patches and 0 for others. An image's loss is the mean over the masked
    patches of a view, 0 if there are none, and then the mean over its V views (as in the papers' code). Raises ValueError for
    shapes that do not match.
    """
    if student.ndim != 4 or student.shape != targets.shape or weights.shape != student.shape[:3]:
        raise ValueError(
            f"expected logits and targets [V, N, K, P] and weights [V, N, K], got {list(student.shape)}, "
            f"{list(targets.shape)} and {list(weights.shape)}"
        )
    with without_autocast(student):
        log_student = F.log_softmax(full_precision(student) / temperature, dim=-1)
        entropy = -(targets * log_student).sum(dim=-1)
        weights = weights.to(entropy.dtype)
        return ((entropy * weights).sum(dim=-1) / weights.sum(dim=-1).clamp_min(1)).mean(dim=0)
