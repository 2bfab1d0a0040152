"""NT-Xent, the normalized temperature-scaled cross entropy of SimCLR (Chen et al., 2020, eq. 1)."""

import torch
from torch import Tensor, nn

from wildfern.ssl.losses.full_precision import full_precision, without_autocast


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

    def forward(self, views: Tensor) -> Tensor:
        """float[V ≥ 2, N ≥ 2, D] with unit rows -> scalar ≥ 0."""
        if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
            raise ValueError(f"expected views of shape [V ≥ 2, N ≥ 2, D], got {list(views.shape)}")
        with without_autocast(views):
            number_of_views, images, _ = views.shape
            z = full_precision(views).flatten(0, 1)
            logits = z @ z.T / self.temperature
            logits.fill_diagonal_(-torch.inf)
            log_denominator = logits.logsumexp(dim=1)
            image = torch.arange(z.shape[0], device=z.device) % images
            same = image[:, None] == image[None, :]
            same.fill_diagonal_(False)
            positive = torch.where(same, logits, 0.0).sum(dim=1) / (number_of_views - 1)
            return (log_denominator - positive).mean()
