"""VICReg (Bardes et al., 2022): equal embeddings of two views, whose dimensions vary and are not correlated."""

from lightly.models.modules.heads import VICRegProjectionHead
from torch import Tensor
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.losses.vicreg import EPSILON, VICRegLoss
from wildfern.ssl.methods.base import Count, Needs, NotNegative, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "vicreg")
class VICReg(ComparingMethod):
    """Mean squared difference of two views, hinge on the standard deviation of each dimension, squared covariances (eq. 6).

    Standard deviations and covariances are those of the global batch. The squared difference is a mean over dimensions, as in the
    authors' experiments, and not their sum as in eq. 5; the usual weights 25, 25 and 1 belong to the mean.
    """

    needs = Needs(views=(2, 2), float32_views=False, images=2)
    usual = Usual("Bardes et al., 2022, section 4.2: batches of 128 to 2048", batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        invariance: NotNegative = 25.0,
        variance: NotNegative = 25.0,
        covariance: NotNegative = 1.0,
        projection_hidden: Count = 8192,
        projection_size: Count = 8192,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = VICRegProjectionHead(backbone.width, projection_hidden, projection_size)
        self.loss = VICRegLoss(invariance, variance, covariance)

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"z": full_precision(embeddings)}, features)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        loss = self.loss(z)
        seen = z.detach()
        unit = F.normalize(seen, dim=-1)
        metrics = {
            "invariance": (seen[0] - seen[1]).square().mean(),
            "deviation": seen.std(dim=1).mean(),
            "embedding_std": embedding_std(unit),
        }
        return Output(loss, metrics, embeddings=unit)

    def collapsed_loss(self, images: int) -> float:
        return self.loss.variance * (1 - EPSILON**0.5)
