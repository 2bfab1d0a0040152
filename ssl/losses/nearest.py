"""The most similar of some keys, by the largest inner product, without a matrix of all products."""

import torch
from torch import Tensor

from wildfern.ssl.losses.row_blocks import row_blocks


@torch.no_grad()
def nearest(queries: Tensor, keys: Tensor, without: Tensor | None = None) -> Tensor:
    """int64[R], for each of the queries float[R, D] the number of the key float[C, D] with the largest inner product.

    without: int64[R], for each query the number of a key that is left out.
    """
    found = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for rows in row_blocks(len(queries), len(keys), queries.device):
        products = queries[rows] @ keys.T
        if without is not None:
            products.scatter_(1, without[rows, None], -torch.inf)
        found[rows] = products.argmax(dim=1)
    return found
