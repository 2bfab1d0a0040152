"""VICReg: variance, invariance and covariance of the embeddings of two views (Bardes et al., 2022, eq. 1 to 6)."""

from torch import Tensor, nn

from wildfern.ssl.losses.full_precision import full_precision, without_autocast

EPSILON = 1e-4  # under the root of the variance (section 4.2)


class VICRegLoss(nn.Module):
    """λ · mean squared difference + μ · hinge on standard deviations below 1 + ν · squared covariances of dimensions.

    The squared difference and the hinge are means over dimensions, the covariances' squares are divided by D (eq. 3); hinge and
    covariances are averaged over the views and summed, as in the authors' experiments. Raises ValueError for other shapes.
    """

    def __init__(self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(self, views: Tensor) -> Tensor:
        """float[2, N ≥ 2, D], of any norm -> scalar ≥ 0."""
        if views.ndim != 3 or views.shape[0] != 2 or views.shape[1] < 2:
            raise ValueError(f"expected views of shape [2, N ≥ 2, D], got {list(views.shape)}")
        with without_autocast(views):
            z = full_precision(views)
            images, dimensions = z.shape[1:]
            centered = z - z.mean(dim=1, keepdim=True)
            variances = centered.square().sum(dim=1) / (images - 1)
            hinge = (1 - (variances + EPSILON).sqrt()).relu().mean()
            covariances = centered.transpose(1, 2) @ centered / (images - 1)
            covariances.diagonal(dim1=1, dim2=2).zero_()  # the variances
            squares = covariances.square().sum()
            invariance = (z[0] - z[1]).square().mean()
            return self.invariance * invariance + self.variance * hinge + self.covariance * squares / dimensions
