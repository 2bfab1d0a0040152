"""SwAV (Caron et al., 2020): from any crop, predict the prototypes to which another crop of the image is assigned."""

from itertools import pairwise
from math import log
from typing import Annotated, cast

import torch
from lightly.models.modules.heads import ProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses import sinkhorn, swapped_prediction
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.methods.base import Count, Fraction, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import (
    all_gather_embeddings,
    logsumexp_over_ranks,
    mean_over_ranks,
    own_rows,
    world_size,
)
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import NormalizedLinear
from wildfern.ssl.models.queue import EmbeddingQueue


@register("method", "swav")
class SwAV(ComparingMethod):
    """Projection to the unit sphere, prototypes, and assignments of the two global views by Sinkhorn-Knopp over the global batch.

    Each assignment is predicted from all other views. For batches with fewer images than prototypes, the last `queue` embeddings
    of each global view take part in the assignment, from the share `queue_start` of the run on. Prototypes do not change in the
    first share `freeze_prototypes`. SEER (Goyal et al., 2021) is SwAV with large RegNets and a projection of three layers
    without batch normalization.
    """

    needs = Needs(views=(2, None), full_size_views=2, float32_views=False, images=2)
    usual = Usual("Caron et al., 2020, appendix A: batches of 256 to 4096", batch_size=64)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        prototypes: Annotated[int, Field(ge=2)] = 3000,
        temperature: Positive = 0.1,
        sinkhorn_temperature: Positive = 0.05,
        sinkhorn_iterations: Count = 3,
        queue: Annotated[int, Field(ge=0)] = 0,
        queue_start: Fraction = 0.0,
        freeze_prototypes: Fraction = 0.0,
        projection_layers: Annotated[int, Field(ge=1)] = 2,
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
        projection_batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = _mlp(
            backbone.width, projection_hidden, projection_size, projection_layers, projection_batch_norm
        )
        self.prototypes = NormalizedLinear(projection_size, prototypes)
        with torch.no_grad():  # as long as those of the paper, so that the rate of change is the same
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=-1))
        self.number_of_prototypes, self.temperature = prototypes, temperature
        self.sinkhorn = (sinkhorn_temperature, sinkhorn_iterations)
        self.queues = nn.ModuleList(EmbeddingQueue(queue, projection_size) for _ in range(2 if queue else 0))
        self.queue_length, self.queue_start = queue, queue_start * total_steps
        self.frozen_steps = freeze_prototypes * total_steps
        self._queued: list[Tensor] = []  # logits of this rank's part of each queue, in the current step

    def embed(self, batch: Batch) -> Embedded:
        self.prototypes.frozen = batch.step < self.frozen_steps
        embeddings, features = self.encode(self.projection, batch.views)
        z = F.normalize(full_precision(embeddings), dim=-1)
        with without_autocast(z):  # logits are divided by small temperatures
            return Embedded({"logits": self.prototypes(z), "z": z[:2].detach()}, features)

    @torch.no_grad()
    def targets(self, batch: Batch) -> dict[str, Tensor]:
        if batch.part == 0:
            images = len(batch) * batch.parts * world_size()
            ready = batch.step >= self.queue_start and batch.step * images >= self.queue_length
            with without_autocast(batch.views[0]):
                self._queued = [self.prototypes(own_rows(queue())) for queue in self.queues] if ready else []
        return {}

    def gather(self, name: str, x: Tensor) -> Tensor:
        return x if name == "logits" else all_gather_embeddings(x)  # many prototypes: too much to send

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        logits, z = embeddings["logits"], embeddings["z"]
        own = logits.shape[1]
        assignments = []
        for view in range(2):
            rows = torch.cat([logits[view].detach(), *self._queued[view : view + 1]])
            assignments.append(sinkhorn(rows, *self.sinkhorn, logsumexp_rows=logsumexp_over_ranks)[:own])
        q = torch.stack(assignments)
        if self.training:
            for queue, rows in zip(self.queues, z, strict=False):
                cast(EmbeddingQueue, queue).push(rows)
        metrics = {
            "assignment_entropy": -(q * q.clamp_min(1e-12).log()).sum(dim=-1).mean(),
            "prototype_use": prototype_use(logits[:2].detach()),
            "embedding_std": embedding_std(z),
        }
        return Output(swapped_prediction(logits, q, self.temperature), metrics, embeddings=z)

    def collapsed_loss(self, images: int) -> float:
        return log(self.number_of_prototypes)


def prototype_use(logits: Tensor) -> Tensor:
    """exp(entropy) / P of how often each of P prototypes is the nearest, over the views float[V, n, P] of all ranks.

    1 if all are used equally, 1/P if only one is; at most V·N/P.
    """
    prototypes = logits.shape[-1]
    nearest = logits.argmax(dim=-1).flatten()
    count = logits.new_zeros(prototypes).index_add_(0, nearest, logits.new_ones(len(nearest)))
    share = mean_over_ranks(count / len(nearest))
    return (-(share * share.clamp_min(1e-12).log()).sum()).exp() / prototypes


def _mlp(inputs: int, hidden: int, outputs: int, layers: int, batch_norm: bool) -> ProjectionHead:
    widths = [inputs, *[hidden] * (layers - 1)]
    blocks: list = [(a, b, nn.BatchNorm1d(b) if batch_norm else None, nn.ReLU()) for a, b in pairwise(widths)]
    return ProjectionHead([*blocks, (widths[-1], outputs, None, None)])
