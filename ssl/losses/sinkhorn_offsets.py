"""Sinkhorn-Knopp as one number for each prototype, for batches whose logits are never in memory at once."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from wildfern.ssl.losses.full_precision import full_precision, without_autocast

Rows = tuple[Tensor, Tensor]  # logits float[R, P] and weights float[R], 1 for rows that count and 0 for others


@torch.no_grad()
def sinkhorn_offsets(
    rows: Callable[[], Iterable[Rows]],
    temperature: float,
    iterations: int = 3,
    over_ranks: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Offsets float[P] with which softmax(logits/temperature − offsets) are the assignments of `sinkhorn` to P prototypes.

    The last step of an iteration normalizes each row by itself, so that the rest of the result is one factor for each
    prototype (Caron et al., 2020, section 3.1; DINOv2, Oquab et al., 2023, section 4). `rows()` gives all rows of this rank in
    chunks, anew in each iteration; `over_ranks` adds up exp(x) of float[P] over ranks and returns the logarithm. Without a row
    that counts, offsets are 0.
    """
    offsets: Tensor | None = None
    for _ in range(iterations):
        total: Tensor | None = None
        for logits, weights in rows():
            with without_autocast(logits):
                scaled = full_precision(logits) / temperature
                log_weights = weights.to(scaled.dtype).log()
                if offsets is not None:
                    log_weights = log_weights - (scaled - offsets).logsumexp(dim=1)
                found = (scaled + log_weights[:, None]).logsumexp(dim=0)
                total = found if total is None else torch.logaddexp(total, found)
        if total is None:
            raise ValueError("rows() gives no rows")
        total = over_ranks(total)
        offsets = torch.where(total.isneginf(), torch.zeros_like(total), total)
    if offsets is None:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    return offsets
