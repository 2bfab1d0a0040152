"""NT-Xent, the normalized temperature-scaled cross entropy of SimCLR (Chen et al., 2020, eq. 1)."""

import torch
from torch import Tensor, nn

from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.log_sum_exp import log_sum_exp
from wildfern.ssl.losses.row_blocks import images_of


class NTXentLoss(nn.Module):
    """For every ordered pair of views (i, j) of an image: −log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ), averaged.

    s is the cosine similarity and k runs over all V·N embeddings but i itself. With two views this is SimCLR's eq. 1;
    with more, each other view of the image is the positive in turn (and the others stay in the denominator).

    Raises ValueError for a temperature that is not positive, fewer than two views or a single image, which has no negatives.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be greater than 0, got {temperature}")
        self.temperature = temperature

    def forward(self, views: Tensor, *, rows: slice | None = None) -> Tensor:
        """float[V ≥ 2, N ≥ 2, D] with unit rows -> scalar ≥ 0; with `rows`, the summands in which i is of these images.

        The parts of the loss over any division of the images have the sum of the loss. Memory grows with N, not with N².
        """
        if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
            raise ValueError(f"expected views of shape [V ≥ 2, N ≥ 2, D], got {list(views.shape)}")
        with without_autocast(views):
            z = full_precision(views)
            number_of_views, images, _ = z.shape
            own = images_of(rows, images)
            queries = z[:, own]
            itself = torch.arange(number_of_views * images, device=z.device).view(number_of_views, images)[:, own]
            turns = range(1, number_of_views)  # from a view to the others of its image
            positives = (queries * (queries.sum(dim=0) - queries)).sum(dim=-1) / (self.temperature * len(turns))
            total = log_sum_exp(
                queries.flatten(0, 1),
                z.flatten(0, 1),
                1 / self.temperature,
                minus=positives.flatten(),
                minus_keys=torch.stack([itself.roll(turn, dims=0) for turn in turns], dim=-1).flatten(0, 1),
                without=itself.flatten(),
            )
            return total / (number_of_views * images)
