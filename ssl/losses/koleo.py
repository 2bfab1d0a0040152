"""KoLeo: spreads embeddings by the distance to the nearest neighbor (Sablayrolles et al., 2019, eq. 3; DINOv2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.nearest import nearest
from wildfern.ssl.losses.row_blocks import images_of

_SMALLEST = 1e-8  # distance of equal embeddings, whose gradient is zero


def koleo_loss(embeddings: Tensor, *, rows: slice | None = None) -> Tensor:
    """−1/N Σ log min ‖x_i − x_j‖ over the other rows j; float[N, D] -> scalar. Rows are normalized to unit length first.

    The nearest neighbors are those of all rows given: give those of the global batch. With `rows`, the summands of these i alone:
    the parts over any division of the rows have the sum of the loss. Computed in float64, whatever the type of the embeddings: in
    float32 the inner products of rows less than 1e-3 apart are equal up to rounding, and so are their distances below 1e-6.
    Raises ValueError for other shapes and for a single row.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError(f"expected embeddings of shape [N ≥ 2, D], got {list(embeddings.shape)}")
    given = full_precision(embeddings)
    with without_autocast(embeddings):
        exact = (given.cpu() if given.device.type == "mps" else given).double()  # MPS has no float64
        x = F.normalize(exact, dim=1)
        own = images_of(rows, len(x))
        neighbors = nearest(x[own], x, without=torch.arange(own.start, own.stop, device=x.device))
        squared = (x[own] - x[neighbors]).square().sum(dim=1)
        loss = -0.5 * (squared + _SMALLEST**2).log().sum() / len(x)
        return loss.to(given.dtype).to(given.device)
