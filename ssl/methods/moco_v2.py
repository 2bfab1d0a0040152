"""MoCo v2 (He et al., 2020; Chen et al., 2020): contrast with a queue of a momentum encoder's keys of earlier batches."""

from math import log

import torch
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.losses.info_nce import queue_info_nce
from wildfern.ssl.methods.base import Count, Fraction, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import own_images, world_size
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.queue import EmbeddingQueue


@register("method", "moco_v2")
class MoCoV2(ComparingMethod):
    """The first view is the query, the momentum encoder's embedding of the second its key, the queue holds the negatives.

    With `symmetric` each view is a query once and a key once (at twice the cost of a step), and the loss is the mean. The keys
    of the global batch enter the queue once per step, after the loss; the momentum is constant.

    Batch normalization: the paper shuffles images between GPUs for the keys, so that a query and its key are not normalized with
    the same few images, which would give the key away. Here both are normalized with the whole global batch on all ranks,
    and nothing is shuffled. What keys of one step have in common, against those of earlier steps in the queue, shrinks with the
    size of the batch: avoid small ones, or take a backbone without batch normalization. The projection has none.
    """

    needs = Needs(views=(2, 2), full_size_views=2, float32_views=False)
    usual = Usual("He et al., 2020, section 3.3; Chen et al., 2020", weight_decay=True, batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        temperature: Positive = 0.2,
        queue_length: Count = 65536,
        momentum: Fraction = 0.999,
        symmetric: bool = False,
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.projection = MoCoProjectionHead(backbone.width, projection_hidden, projection_size)
        self.queue = EmbeddingQueue(queue_length, projection_size)
        self.teacher = self.add_teacher("teacher", ("backbone", "projection"), lambda step: momentum)
        self.query_views = 2 if symmetric else 1

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, [batch.views[0][: self.query_views]])
        return Embedded({"queries": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        views = batch.views[0].flip(0)[: self.query_views]  # the other view of each query
        keys = self.teacher(views.flatten(0, 1)).unflatten(0, (len(views), -1))
        return {"keys": F.normalize(full_precision(keys), dim=-1)}

    def collapsed_loss(self, images: int) -> float:
        return log(1 + len(self.queue.embeddings))

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        queries, keys, queue = embeddings["queries"], embeddings["keys"], self.queue()
        own = own_images(keys.shape[1])
        losses = [queue_info_nce(q, k, queue, self.temperature, rows=own) for q, k in zip(queries, keys, strict=True)]
        self.queue.push(keys.flatten(0, 1))
        metrics = {"embedding_std": embedding_std(queries), "key_std": embedding_std(keys)}
        loss = world_size() * torch.stack(losses).mean()
        return Output(loss, metrics, embeddings=torch.stack([queries[0], keys[0]]))
