"""InfoNCE (van den Oord et al., 2018): each query is classified as its own key, among the batch's keys or a queue's."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """−log exp(q_i·k_i/τ) / Σ_j exp(q_i·k_j/τ), averaged over i: the keys of the other images are the negatives.

    float[N, D] each, with unit rows -> scalar ≥ 0; ln N if all rows are equal. MoCo v3: Chen, Xie & He, 2021,
    eq. 1; NNCLR: Dwibedi et al., 2021, eq. 2.
    """
    _check(queries, keys, temperature)
    with without_autocast(queries):
        logits = full_precision(queries) @ full_precision(keys).T / temperature
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def queue_info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """−log exp(q_i·k_i/τ) / (exp(q_i·k_i/τ) + Σ_l exp(q_i·u_l/τ)), averaged over i: only the queue's rows u are negatives.

    queries and keys float[N, D], queue float[L, D], with unit rows -> scalar ≥ 0; ln(1 + L) if all rows are equal. MoCo: He et
    al., 2020, eq. 1 and algorithm 1.
    """
    _check(queries, keys, temperature)
    if queue.ndim != 2 or queue.shape[1] != queries.shape[1]:
        raise ValueError(f"expected a queue [L, {queries.shape[1]}], got {list(queue.shape)}")
    with without_autocast(queries):
        q, k, u = (full_precision(x) for x in (queries, keys, queue))
        positive = (q * k).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, q @ u.T], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def _check(queries: Tensor, keys: Tensor, temperature: float) -> None:
    if queries.ndim != 2 or queries.shape != keys.shape:
        raise ValueError(f"expected queries and keys [N, D], got {list(queries.shape)} and {list(keys.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
