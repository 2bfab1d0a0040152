"""Softmax over the products of queries with keys, a block of queries at a time: no matrix of all products is kept.

`log_sum_exp` gives exactly the derivatives of its value, in the precision of its input, and cannot be differentiated twice.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wildfern.ssl.losses.first_derivative import first_derivative_only
from wildfern.ssl.losses.row_blocks import row_blocks

# Up to this scale, exponentials of products of unit vectors are above e⁻⁴⁰ once the largest possible one is 1.
_SCALE_WITHOUT_MAXIMUM = 20


def log_sum_exp(
    queries: Tensor,
    keys: Tensor,
    scale: float,
    *,
    weights: Tensor | None = None,
    minus: Tensor | None = None,
    minus_keys: Tensor | None = None,
    without: Tensor | None = None,
    further: Tensor | None = None,
    unit_rows: bool = False,
) -> Tensor:
    """Σ_i w_i (log Σ_j exp(s q_i·k_j) − m_i) of queries float[R, D] and keys float[C, D], with s = `scale` (1/τ): scalar.

    weights: float[R], without gradient; all 1 by default.
    minus: float[R], subtracted from each logarithm before the sum, which is more exact than to subtract sums; 0 by default.
    minus_keys: int64[R, P], if m_i is the mean of s q_i·k_j over these P keys j: the value then has their rounding errors, of
        which most cancel where they dominate the sum of exponentials.
    without: int64[R], for each query the number of a key that is left out.
    further: float[R, D], for each query one more key of its own.
    unit_rows: promises that all rows have length 1, so that a small scale needs no maximum of each row.

    The gradient is computed along with the value. Memory: one block of `row_blocks`, and two tensors of the size of each input.
    """
    found: Tensor = _LogSumExp.apply(
        queries,
        keys,
        further,
        scale,
        weights,
        without,
        unit_rows,
        None if minus is None else minus.detach(),
        minus_keys,
    )
    if minus is None:
        return found
    gradient = minus.detach() - minus  # 0, with the gradient
    return found + (gradient.sum() if weights is None else gradient.dot(weights))


@torch.no_grad()
def softmax_mean(
    queries: Tensor,
    keys: Tensor,
    scale: float,
    *,
    without: Tensor | None = None,
    further: Tensor | None = None,
    unit_rows: bool = False,
) -> Tensor:
    """Σ_j w_ij k_j for w_i = softmax_j(s q_i·k_j): float[R, D], without gradient. Arguments and memory: as `log_sum_exp`."""
    mean = torch.empty_like(queries)
    for block in softmax_blocks(queries * scale, keys, without, further, scale if unit_rows else None):
        mean[block.rows] = torch.mm(block.potential, keys).div_(block.norm)
        if further is not None and block.of_further is not None:
            mean[block.rows] += further[block.rows] * (block.of_further / block.norm)
    return mean


class SoftmaxBlock(NamedTuple):
    """Some rows of a softmax that is not yet normalized: exp(logits − top)."""

    rows: slice
    potential: Tensor  # float[R, C], overwritten by the next block
    of_further: Tensor | None  # float[R, 1]
    norm: Tensor  # float[R, 1], the sums of both
    top: Tensor | float  # float[R, 1]
    picked: Tensor | None  # float[R, 1], the mean of some logits


def softmax_blocks(
    scaled: Tensor,
    keys: Tensor,
    without: Tensor | None = None,
    further: Tensor | None = None,
    largest: float | None = None,
    picked: Tensor | None = None,
) -> Iterator[SoftmaxBlock]:
    """Blocks of exp(q_i·k_j − top_i) for queries float[R, D] that were multiplied by the scale.

    largest: a bound of the logits' absolute values; a small one is subtracted in place of each row's maximum.
    picked: int64[R, P], the keys of `SoftmaxBlock.picked`.
    """
    blocks = row_blocks(len(scaled), len(keys), scaled.device)
    buffer = scaled.new_empty(blocks[0].stop if blocks else 0, len(keys))
    for rows in blocks:
        query = scaled[rows]
        logits = torch.mm(query, keys.T, out=buffer[: len(query)])
        if without is not None:
            logits.scatter_(1, without[rows, None], -torch.inf)
        mean = None if picked is None else logits.gather(1, picked[rows]).mean(dim=1, keepdim=True)
        own = None if further is None else (query * further[rows]).sum(dim=1, keepdim=True)
        top: Tensor | float
        if largest is not None and largest <= _SCALE_WITHOUT_MAXIMUM:
            top = largest
        else:
            top = logits.amax(dim=1, keepdim=True)
            top = top if own is None else torch.maximum(top, own)
        potential = logits.sub_(top).exp_()
        norm = potential.sum(dim=1, keepdim=True)
        of_further = None if own is None else (own - top).exp()
        yield SoftmaxBlock(rows, potential, of_further, norm if of_further is None else norm + of_further, top, mean)


class _LogSumExp(torch.autograd.Function):
    """∂/∂q_i = w_i s Σ_j p_ij k_j and ∂/∂k_j = Σ_i w_i p_ij s q_i with p_i = softmax_j(s q_i·k_j).

    Floor: three matrix products of 2 R C D operations (the logits and both gradients) and R C exponentials.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        further: Tensor | None,
        scale: float,
        weights: Tensor | None,
        without: Tensor | None,
        unit_rows: bool,
        minus: Tensor | None,
        minus_keys: Tensor | None,
    ) -> Tensor:
        scaled, values = queries * scale, queries.new_empty(len(queries))
        to_queries = torch.empty_like(scaled) if ctx.needs_input_grad[0] else None
        to_keys = torch.zeros_like(keys) if ctx.needs_input_grad[1] else None
        to_further = torch.empty_like(scaled) if ctx.needs_input_grad[2] else None
        for block in softmax_blocks(scaled, keys, without, further, scale if unit_rows else None, minus_keys):
            rows, top = block.rows, block.top
            if minus is not None:
                top = top - (minus[rows, None] if block.picked is None else block.picked)
            values[rows] = (block.norm.log() + top)[:, 0]
            share = 1 / block.norm if weights is None else weights[rows, None] / block.norm
            if to_queries is not None:
                to_queries[rows] = torch.mm(block.potential, keys).mul_(scale * share)
                if further is not None and block.of_further is not None:
                    to_queries[rows] += further[rows] * (scale * share * block.of_further)
            if to_keys is not None:
                torch.addmm(to_keys, block.potential.T, scaled[rows] * share, out=to_keys)
            if to_further is not None and block.of_further is not None:
                to_further[rows] = scaled[rows] * (share * block.of_further)
        ctx.save_for_backward(to_queries, to_keys, to_further)
        return values.sum() if weights is None else values.dot(weights)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if x is None else gradient * x for x in ctx.saved_tensors), None, None, None, None, None, None
