"""Swapped prediction: the prototypes of one view are predicted from the others (Caron et al., 2020, eq. 1-2 and section 3.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def swapped_prediction(logits: Tensor, assignments: Tensor, temperature: float = 0.1) -> Tensor:
    """−Σ_p q_tnp log softmax_p(logits_vn / τ), averaged over images n and pairs of views t ≠ v.

    logits float[V ≥ 2, N, P]; assignments float[T ≤ V, N, P] of the first T views, with rows that sum to 1, get no gradient.
    Raises ValueError for shapes that do not match and a temperature that is not positive.
    """
    if logits.shape[1:] != assignments.shape[1:] or len(logits) < max(2, len(assignments)):
        raise ValueError(
            f"logits {list(logits.shape)} and assignments {list(assignments.shape)} do not match: shapes must be [V, N, P] and "
            "[T, N, P] with V ≥ 2 and T ≤ V"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
    with without_autocast(logits):
        log_p = F.log_softmax(full_precision(logits) / temperature, dim=-1)
        q = assignments.detach().to(log_p.dtype)
        entropy = -torch.einsum("tnp,vnp->tv", q, log_p) / logits.shape[1]
        same = torch.eye(*entropy.shape, dtype=torch.bool, device=entropy.device)
        return entropy.masked_fill(same, 0.0).sum() / (~same).sum()
