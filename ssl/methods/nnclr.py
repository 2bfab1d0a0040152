"""NNCLR (Dwibedi et al., 2021): the positive of an image is its nearest neighbor among embeddings of earlier batches."""

from math import log

import torch
from lightly.models.modules.heads import NNCLRPredictionHead, NNCLRProjectionHead
from torch import Tensor
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.info_nce import info_nce
from wildfern.ssl.losses.nearest import nearest
from wildfern.ssl.methods.base import Count, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import own_images, world_size
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.queue import EmbeddingQueue


@register("method", "nnclr")
class NNCLR(ComparingMethod):
    """InfoNCE of NN(z₁) with the predictions of the second view, and of NN(z₂) with those of the first, averaged (eq. 2).

    NN is the most similar row of a queue, the support set, which gets the first view's projections of the global batch once per
    step, after the loss (section 3.2). Gradients reach the predictions only.
    """

    needs = Needs(views=(2, 2), full_size_views=2, float32_views=False, images=2)
    usual = Usual("Dwibedi et al., 2021, section 4.1: batches of 256 to 4096", weight_decay=True, batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        temperature: Positive = 0.1,
        queue_length: Count = 65536,
        projection_hidden: Count = 2048,
        projection_size: Count = 256,
        predictor_hidden: Count = 4096,
    ) -> None:
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.projection = NNCLRProjectionHead(backbone.width, projection_hidden, projection_size)
        self.predictor = NNCLRPredictionHead(projection_size, predictor_hidden, projection_size)
        self.queue = EmbeddingQueue(queue_length, projection_size)

    def embed(self, batch: Batch) -> Embedded:
        projections, features = self.encode(self.projection, batch.views)
        predictions = self.predictor(projections.flatten(0, 1)).unflatten(0, (2, -1))
        z = F.normalize(full_precision(projections).detach(), dim=-1)
        return Embedded({"p": F.normalize(full_precision(predictions), dim=-1), "z": z}, features)

    def collapsed_loss(self, images: int) -> float:
        return log(images)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        p, z, queue = embeddings["p"], embeddings["z"], self.queue()
        own = own_images(z.shape[1])
        neighbors = torch.zeros_like(z)  # of other ranks' images none is needed
        for view in range(2):
            neighbors[view, own] = nearest_neighbors(z[view, own], queue)
        losses = [info_nce(neighbors[view], p[1 - view], self.temperature, rows=own) for view in range(2)]
        self.queue.push(z[0])
        similarity = world_size() * (neighbors * z).sum(dim=-1).mean()
        metrics = {"embedding_std": embedding_std(z), "neighbor_similarity": similarity}
        return Output(world_size() * torch.stack(losses).mean(), metrics, embeddings=z)


@torch.no_grad()
def nearest_neighbors(z: Tensor, queue: Tensor) -> Tensor:
    """The row of queue float[L, D] with the largest inner product, for each row of z float[N, D]: float[N, D]."""
    with without_autocast(z):
        return queue[nearest(full_precision(z), queue)]
