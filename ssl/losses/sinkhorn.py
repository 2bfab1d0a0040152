"""Sinkhorn-Knopp: soft assignments that use all prototypes equally (Caron et al., 2020, section 3.1; Cuturi, 2013)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from wildfern.ssl.losses.full_precision import full_precision, without_autocast

_OVER_ROWS = partial(torch.logsumexp, dim=0)


@torch.no_grad()
def sinkhorn(
    logits: Tensor, temperature: float, iterations: int = 3, *, logsumexp_rows: Callable[[Tensor], Tensor] = _OVER_ROWS
) -> Tensor:
    """Assignments float[N, P] of N rows to P prototypes, without gradient; each row sums to 1.

    Starts from exp(logits/temperature) (ε of eq. 3). An iteration gives all prototypes the same total, then all rows. Computed
    with logarithms, so that no temperature overflows. It is exact over the rows given: give those of all ranks, or those of
    this rank and a `logsumexp_rows`, [N, P] -> [P], that sums over all ranks.
    Raises ValueError for other shapes, a temperature that is not positive or less than one iteration.
    """
    if logits.ndim != 2 or not logits.numel():
        raise ValueError(f"expected logits of shape [N ≥ 1, P ≥ 1], got {list(logits.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    with without_autocast(logits):
        log_q = full_precision(logits) / temperature
        for _ in range(iterations):
            log_q = log_q - logsumexp_rows(log_q)
            log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
        return log_q.exp()
