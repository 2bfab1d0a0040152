"""CACR (Zheng et al.): attracts distant positives and repels close negatives, in its three published forms."""

from math import log
from typing import Annotated, Literal

import torch
from lightly.models.modules.heads import MoCoProjectionHead, SimCLRProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses import CACRLoss, CACRTerms, MomentumCACRLoss, QueueCACRLoss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Fraction, Needs, NotNegative, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import own_images, sum_over_ranks, world_size
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import moco_v3_projector
from wildfern.ssl.models.queue import EmbeddingQueue
from wildfern.ssl.models.teacher import MomentumTeacher, cosine_momentum


@register("method", "cacr")
class CACR(ComparingMethod):
    """CACR without a momentum encoder: K + 1 views per image, each a query, a positive and a negative."""

    needs = Needs(views=(2, None), float32_views=False, images=2)
    usual = Usual("Zheng et al.: batches of 128 to 4096", batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        alpha: NotNegative = 1.0,
        beta: NotNegative = 1.0,
        tau_pos: NotNegative = 1.0,
        tau_neg: NotNegative = 1.0,
        weighted_positive: bool = True,
        weighted_negative: bool = True,
        detach_weights: bool = False,
        cost: Literal["euclidean", "rbf"] = "euclidean",
        rbf_scale: Positive = 2.0,
        debias: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        projection: Literal["linear", "mlp"] = "linear",
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        _check_scales(alpha, beta)
        self.backbone = backbone
        if projection == "linear":
            self.projection: nn.Module = nn.Linear(backbone.width, projection_size)
        else:
            self.projection = SimCLRProjectionHead(backbone.width, projection_hidden, projection_size)
        self.loss = CACRLoss(
            *(alpha, beta, tau_pos, tau_neg, weighted_positive, weighted_negative, detach_weights),
            cost=cost,
            rbf_scale=rbf_scale,
            debias=debias,
        )

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"z": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def collapsed_loss(self, images: int) -> float:
        return 0.0  # all distances are, and the logarithm of the RBF cost

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        # without DeepSpeed's hooks, which find no tensors in CACRTerms (ZeRO 3)
        terms = self.loss.forward(z, rows=own_images(z.shape[1]), sum_over_parts=sum_over_ranks)
        return _output(terms, z)


@register("method", "cacr_momentum")
class MomentumCACR(ComparingMethod):
    """CACR with MoCo v3's networks, for ImageNet: all views are queries, the first two (`keys="light"`) or all are also keys.

    A query is not compared with the key of the same view, and the loss is the mean over keys. With two views and `cost="rbf"`
    every query has the weight 1: the loss is T (CE(q₁·K₂/T) + CE(q₂·K₁/T)), half of MoCo v3's. It differs with local crops
    (`views: multicrop`) or `cost="euclidean"`. `predictor_norm`: whether the predictor ends with batch normalization (with a
    ResNet it does not, with a ViT it does, as in MoCo v3's public code).
    """

    needs = Needs(views=(2, None), full_size_views=2, float32_views=False, images=2)
    usual = Usual("Zheng et al.: batches of 128 to 4096", batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        temperature: Positive = 1.0,
        cost: Literal["rbf", "euclidean"] = "rbf",
        momentum: Fraction = 0.996,
        projection_layers: Annotated[int, Field(ge=1)] = 2,
        projection_hidden: Count = 4096,
        projection_size: Count = 256,
        predictor_norm: bool = True,
        keys: Literal["light", "full"] = "light",
    ) -> None:
        super().__init__()
        self.backbone, self.keys = backbone, keys
        projector = moco_v3_projector(backbone.width, projection_hidden, projection_size, projection_layers)
        self.projector = projector
        self.predictor = moco_v3_projector(projection_size, projection_hidden, projection_size, 2)
        if not predictor_norm:
            self.predictor.layers = self.predictor.layers[:-1]
        self.loss = MomentumCACRLoss(temperature, cost)
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "projector"), lambda step: cosine_momentum(momentum, step, total_steps)
        )

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(nn.Sequential(self.projector, self.predictor), batch.views)
        return Embedded({"queries": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        groups = batch.views if self.keys == "full" else batch.views[:1]
        return {"keys": torch.cat([full_precision(teacher_views(self.teacher, group)) for group in groups])}

    def collapsed_loss(self, images: int) -> float | None:
        return 2 * self.loss.temperature * log(images) if self.loss.cost == "rbf" else None

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        queries, keys = embeddings["queries"], embeddings["keys"]
        others = [[v for v in range(len(queries)) if v != key] for key in range(len(keys))]
        own = own_images(keys.shape[1])
        losses = [self.loss(queries[other], keys[key], rows=own) for key, other in enumerate(others)]
        loss = world_size() * torch.stack(losses).mean()
        return Output(loss, {"embedding_std": embedding_std(queries)}, embeddings=queries[:2])


@register("method", "cacr_queue")
class QueueCACR(ComparingMethod):
    """CACR with MoCo v2's networks: negatives are a queue of earlier keys and the other images' queries.

    Every view is a query and a key of the other views. The keys of the last view enter the queue.
    """

    needs = Needs(views=(2, None), float32_views=False, images=2)
    usual = Usual("Zheng et al.: batches of 256 and a queue", batch_size=32)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        alpha: NotNegative = 1.0,
        beta: NotNegative = 1.0,
        tau_pos: NotNegative = 1.0,
        tau_neg: NotNegative = 2.0,
        queue: Count = 65536,
        within_batch: bool = True,
        momentum: Fraction = 0.999,
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        _check_scales(alpha, beta)
        self.backbone = backbone
        self.projection = MoCoProjectionHead(backbone.width, projection_hidden, projection_size)
        self.loss = QueueCACRLoss(alpha, beta, tau_pos, tau_neg, within_batch)
        self.queue = EmbeddingQueue(queue, projection_size)
        self.teacher = self.add_teacher("teacher", ("backbone", "projection"), lambda step: momentum)

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"queries": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        keys = torch.cat([full_precision(teacher_views(self.teacher, group)) for group in batch.views])
        return {"keys": F.normalize(keys, dim=-1)}

    def collapsed_loss(self, images: int) -> float:
        return 0.0  # all distances are, once the queue holds keys of the collapsed network

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        queries, keys = embeddings["queries"], embeddings["keys"]
        own = own_images(keys.shape[1])
        terms = self.loss.forward(queries, keys, self.queue(), rows=own)  # without DeepSpeed's hooks, as in CACR
        if self.training:
            self.queue.push(keys[-1])
        return _output(terms, queries)


def teacher_views(teacher: MomentumTeacher, group: Tensor) -> Tensor:
    """The teacher's output float[V, n, D] for one group of views float[V, n, C, S, S]."""
    return teacher(group.flatten(0, 1)).unflatten(0, group.shape[:2])


def _output(terms: CACRTerms, z: Tensor) -> Output:
    """Loss and metrics from the terms of this rank's images, with embeddings float[V, N, D] of all."""
    attraction, repulsion = world_size() * terms.attraction, world_size() * terms.repulsion
    metrics = {
        "attraction": attraction.detach(),
        "repulsion": repulsion.detach(),
        "embedding_std": embedding_std(z),
    }
    return Output(attraction + repulsion, metrics, embeddings=z)


def _check_scales(alpha: float, beta: float) -> None:
    if not alpha and not beta:
        raise ValueError("alpha and beta are both 0: without attraction and repulsion nothing is learned")
