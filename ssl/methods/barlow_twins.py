"""Barlow Twins (Zbontar et al., 2021): the cross-correlation of two views' embeddings becomes the identity matrix."""

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from torch import Tensor
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.methods.base import Count, Needs, NotNegative, ParameterGroup, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "barlow_twins")
class BarlowTwins(ComparingMethod):
    """scale · (Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij²), eq. 1; C from the mean and variance of the global batch. Two views.

    `redundancy` is λ. `bias_learning_rate` is a factor for biases and normalization: 0.024 in the paper, 1 in solo-learn.
    """

    needs = Needs(views=(2, 2), float32_views=False, images=2)
    usual = Usual("Zbontar et al., 2021, section 4.2: batches of 128 to 2048", batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        redundancy: NotNegative = 5e-3,
        scale: Positive = 1.0,
        projection_hidden: Count = 8192,
        projection_size: Count = 8192,
        bias_learning_rate: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = BarlowTwinsProjectionHead(backbone.width, projection_hidden, projection_size)
        self.loss = BarlowTwinsLoss(redundancy)
        self.scale, self.projection_size, self.bias_learning_rate = scale, projection_size, bias_learning_rate

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"z": full_precision(embeddings)}, features)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        with without_autocast(z):
            loss = self.scale * self.loss(z[0], z[1])
        unit = F.normalize(z.detach(), dim=-1)
        metrics = {"correlation": view_correlation(z.detach()), "embedding_std": embedding_std(unit)}
        return Output(loss, metrics, embeddings=unit)

    def collapsed_loss(self, images: int) -> float:
        return self.scale * self.projection_size  # all correlations are 0

    def parameter_groups(self) -> list[ParameterGroup]:
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        return [
            ParameterGroup([(name, p) for name, p in named if p.ndim > 1], "weights"),
            ParameterGroup(
                [(name, p) for name, p in named if p.ndim <= 1], "biases", learning_rate=self.bias_learning_rate
            ),
        ]


def view_correlation(z: Tensor) -> Tensor:
    """Mean over dimensions of the correlation between the two views float[2, N, D]: 1 if they agree, 0 on collapse."""
    centered = z - z.mean(dim=1, keepdim=True)
    return F.cosine_similarity(centered[0], centered[1], dim=0).mean()
