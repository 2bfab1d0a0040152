"""SimCLR (Chen et al., 2020): agree on two views of an image, disagree with all other images."""

from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.ssl.losses import NTXentLoss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Positive, Scalars, embedding_std
from wildfern.ssl.methods.gather import all_gather_embeddings


class SimCLR(Method):
    """Backbone, two-layer projection (section 2), NT-Xent over the global batch. Two or more views of one size."""

    def __init__(
        self,
        backbone: nn.Module,
        total_steps: int,
        *,
        temperature: Positive = 0.1,
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = SimCLRProjectionHead(backbone.width, projection_hidden, projection_size)
        self.loss = NTXentLoss(temperature)

    def forward(self, views: list[Tensor], step: int) -> tuple[Tensor, Scalars]:
        z = F.normalize(full_precision(self.encode(self.projection, views)), dim=-1)
        z = all_gather_embeddings(z)
        return self.loss(z), {"embedding_std": embedding_std(z)}
