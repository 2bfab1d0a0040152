"""InfoNCE (van den Oord et al., 2018): each query is classified as its own key, among the batch's keys or a queue's.

Memory grows with the number of images and of keys, not with their product.
"""

import torch
from torch import Tensor

from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.log_sum_exp import log_sum_exp
from wildfern.ssl.losses.row_blocks import images_of


def info_nce(queries: Tensor, keys: Tensor, temperature: float, *, rows: slice | None = None) -> Tensor:
    """−log exp(q_i·k_i/τ) / Σ_j exp(q_i·k_j/τ), averaged over i: the keys of the other images are the negatives.

    float[N, D] each, with unit rows -> scalar ≥ 0; ln N if all rows are equal. With `rows`, the summands of these images i
    alone: the parts over any division of the images have the sum of the loss. MoCo v3: Chen, Xie & He, 2021, eq. 1; NNCLR:
    Dwibedi et al., 2021, eq. 2.
    """
    _check(queries, keys, temperature)
    with without_autocast(queries):
        own = images_of(rows, len(keys))
        q, k = full_precision(queries)[own], full_precision(keys)
        positives = (q * k[own]).sum(dim=1) / temperature
        number = torch.arange(len(k), device=k.device)[own, None]
        return log_sum_exp(q, k, 1 / temperature, minus=positives, minus_keys=number) / len(k)


def queue_info_nce(
    queries: Tensor, keys: Tensor, queue: Tensor, temperature: float, *, rows: slice | None = None
) -> Tensor:
    """−log exp(q_i·k_i/τ) / (exp(q_i·k_i/τ) + Σ_l exp(q_i·u_l/τ)), averaged over i: only the queue's rows u are negatives.

    queries and keys float[N, D], queue float[L, D], with unit rows -> scalar ≥ 0; ln(1 + L) if all rows are equal. `rows`: as in
    `info_nce`. MoCo: He et al., 2020, eq. 1 and algorithm 1.
    """
    _check(queries, keys, temperature)
    if queue.ndim != 2 or queue.shape[1] != queries.shape[1]:
        raise ValueError(f"expected a queue [L, {queries.shape[1]}], got {list(queue.shape)}")
    with without_autocast(queries):
        own = images_of(rows, len(keys))
        q, k, u = full_precision(queries)[own], full_precision(keys)[own], full_precision(queue)
        scale = 1 / temperature
        positives = (q * scale * k).sum(dim=1)  # rounded as in the sum of exponentials
        return log_sum_exp(q, u, scale, minus=positives, further=k) / len(keys)


def _check(queries: Tensor, keys: Tensor, temperature: float) -> None:
    if queries.ndim != 2 or queries.shape != keys.shape:
        raise ValueError(f"expected queries and keys [N, D], got {list(queries.shape)} and {list(keys.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
