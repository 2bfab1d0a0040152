"""SimCLR (Chen et al., 2020): contrastive learning of views of the same image against all other images of the batch."""

from math import log

from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses import NTXentLoss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import own_images, world_size
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "simclr")
class SimCLR(ComparingMethod):
    """Backbone, two-layer projection (section 2), NT-Xent over the global batch. Two or more views of one size."""

    needs = Needs(views=(2, None), float32_views=False, images=2)
    usual = Usual("Chen et al., 2020, section 5.1: batches of 256 to 8192", batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
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

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"z": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def collapsed_loss(self, images: int) -> float:
        return log(2 * images - 1)  # of two views

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        loss = world_size() * self.loss(z, rows=own_images(z.shape[1]))
        return Output(loss, {"embedding_std": embedding_std(z)}, embeddings=z)
