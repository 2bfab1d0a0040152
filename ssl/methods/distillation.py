"""Distillation of a frozen teacher of any architecture into the backbone, without labels."""

from math import inf, isfinite, log
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.feature_distillation import feature_distillation_loss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.losses.seed import seed_loss
from wildfern.ssl.methods.base import Count, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import mean_over_ranks, own_images, world_size
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.queue import EmbeddingQueue

RANDOM = "random"


class _TeacherOutputs(NamedTuple):
    """The teacher's features of one micro-batch."""

    features: Tensor  # float[V, n, D]
    tokens: list[Tensor]  # float[V, n, T, D] of each group of views; empty unless they are distilled


@register("method", "distillation")
class Distillation(ComparingMethod):
    """The student sees the same views as a frozen teacher (Beyer et al., 2022) and predicts its features, after a projection.

    `objective: features` regresses the teacher's features, standardized with mean and standard deviation of the global batch;
    with `tokens` also those of each patch, of two vision transformers with equal grids. `objective: similarities` is SEED (Fang
    et al., 2021): cross entropy with the teacher's similarities to a queue of its earlier embeddings.

    The teacher is the network `teacher` with `teacher_arguments`; `teacher_weights` is a run folder, a file, timm or timm:TAG
    (or random, a baseline). Views are converted to the normalization that its weights were trained with, or to `teacher_mean`
    and `teacher_std`. It is neither optimized nor saved.
    """

    needs = Needs(views=(1, None), float32_views=True, images=2)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        teacher: str,
        teacher_weights: str,
        teacher_weights_key: str | None = None,
        teacher_arguments: dict[str, Any] | None = None,
        teacher_mean: tuple[float, ...] | None = None,
        teacher_std: tuple[float, ...] | None = None,
        objective: Literal["features", "similarities"] = "features",
        tokens: bool = False,
        projection_hidden: Count = 2048,
        queue_length: Count = 65536,
        student_temperature: Positive = 0.2,
        teacher_temperature: Positive = 0.01,
    ) -> None:
        super().__init__()
        network = _teacher_network(
            teacher, teacher_weights, teacher_weights_key, backbone.in_chans, teacher_arguments or {}
        )
        if (teacher_mean is None) != (teacher_std is None):
            raise ValueError("set both method.teacher_mean and method.teacher_std, or neither")
        if teacher_mean is not None and teacher_std is not None:
            if not len(teacher_mean) == len(teacher_std) == network.in_chans:
                raise ValueError(
                    f"method.teacher_mean and method.teacher_std need one number for each of the {network.in_chans} channels"
                )
            if not (all(map(isfinite, teacher_mean)) and all(0 < value < inf for value in teacher_std)):
                raise ValueError("method.teacher_mean must be numbers, and method.teacher_std numbers above 0")
            network.mean, network.std = teacher_mean, teacher_std
        if tokens and objective != "features":
            raise ValueError("method.tokens is for method.objective features")
        if tokens and (backbone.patch_size is None or network.patch_size is None):
            raise ValueError(
                f"method.tokens needs two vision transformers, got {backbone.name} and the teacher {network.name}"
            )
        self.backbone, self.objective = backbone, objective
        self.teacher = self.add_frozen_teacher("teacher", network)
        self.projection = _projection(backbone.width, projection_hidden, network.width)
        self.token_projection = _projection(backbone.width, projection_hidden, network.width) if tokens else None
        self.queue = EmbeddingQueue(queue_length, network.width) if objective == "similarities" else None
        self.temperatures = (student_temperature, teacher_temperature)
        self._outputs: dict[int, _TeacherOutputs] = {}  # by micro-batch of this step
        self._statistics: list[tuple[Tensor, Tensor]] = []  # mean and std float[D] of features, and of tokens

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """Keeps the teacher's outputs for `prepare` and `embed`; similarities are compared over the whole batch."""
        n, features, tokens = len(batch), [], []
        for group in batch.views:
            if self.token_projection is None:
                features.append(full_precision(self.teacher(group.flatten(0, 1))))
                continue
            found = self.teacher.tokens(group.flatten(0, 1))
            features.append(full_precision(self.teacher.backbone.pool(found)))
            tokens.append(full_precision(found.patches).unflatten(0, (-1, n)))
        if batch.part == 0:
            self._outputs.clear()
        outputs = self._outputs[batch.part] = _TeacherOutputs(torch.cat(features).unflatten(0, (-1, n)), tokens)
        return {} if self.queue is None else {"keys": F.normalize(outputs.features, dim=-1)}

    def prepare(self, step: int) -> None:
        """Mean and standard deviation of the teacher's features over the global batch."""
        if self.queue is None:
            parts = self._outputs.values()
            self._statistics = [_standardization([part.features.flatten(0, 1) for part in parts])]
            if self.token_projection is not None:
                self._statistics.append(_standardization([t.flatten(0, 2) for part in parts for t in part.tokens]))

    def embed(self, batch: Batch) -> Embedded:
        n, outputs = len(batch), self._outputs[batch.part]
        features, token_losses = [], []
        for number, group in enumerate(batch.views):
            if self.token_projection is None:
                features.append(self.backbone(group.flatten(0, 1)))
                continue
            found = self.backbone.tokens(group.flatten(0, 1))
            features.append(self.backbone.pool(found))
            predicted, wanted = self.token_projection(found.patches).unflatten(0, (-1, n)), outputs.tokens[number]
            if predicted.shape != wanted.shape:
                raise ValueError(
                    f"views of {group.shape[-1]} px have {predicted.shape[2]} patches for {self.backbone.name}, but "
                    f"{wanted.shape[2]} for the teacher {self.teacher.backbone.name}: method.tokens needs equal grids"
                )
            token_losses.append(feature_distillation_loss(predicted, wanted, *self._statistics[1]).mean(dim=2))
        whole = torch.cat(features)
        z = full_precision(self.projection(whole)).unflatten(0, (-1, n))
        seen = whole[:n].detach()
        if self.queue is not None:
            return Embedded({"z": F.normalize(z, dim=-1)}, seen)
        losses = feature_distillation_loss(z, outputs.features, *self._statistics[0]).mean(dim=0, keepdim=True)
        if token_losses:
            losses = torch.cat([losses, torch.cat(token_losses).mean(dim=0, keepdim=True)])
        return Embedded({"losses": losses, "z": F.normalize(z.detach(), dim=-1)}, seen)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        shown = z.detach() if len(z) > 1 else None
        metrics = {"embedding_std": embedding_std(z)}
        if self.queue is not None:
            keys, queue, own = embeddings["keys"], self.queue(), own_images(z.shape[1])
            terms = [seed_loss(z[view], keys[view], queue, *self.temperatures, rows=own) for view in range(len(z))]
            if self.training:
                self.queue.push(keys[0])
            return Output(world_size() * torch.stack(terms).mean(), metrics, embeddings=shown)
        losses = embeddings["losses"].mean(dim=1)
        if len(losses) > 1:
            metrics |= {"feature_loss": losses[0].detach(), "token_loss": losses[1].detach()}
        return Output(losses.sum(), metrics, embeddings=shown)

    def collapsed_loss(self, images: int) -> float:
        if self.queue is not None:
            return log(len(self.queue.embeddings) + 1)
        return 2.0 if self.token_projection is None else 4.0


def _projection(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return ProjectionHead([(inputs, hidden, None, nn.GELU()), (hidden, outputs, None, None)])


def _standardization(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation float[D] of rows float[R, D] in several parts, of all ranks."""
    count = sum(len(x) for x in rows)
    mean = mean_over_ranks(torch.stack([x.sum(dim=0) for x in rows]).sum(dim=0) / count)
    squares = torch.stack([(x - mean).square().sum(dim=0) for x in rows]).sum(dim=0)
    return mean, (mean_over_ranks(squares / count) + 1e-6).sqrt()


def _teacher_network(name: str, weights: str, key: str | None, in_chans: int, arguments: dict[str, Any]) -> Backbone:
    """The teacher with its weights; on torch's meta device, where a run is only estimated, without their values."""
    random = weights == RANDOM and not Path(weights).exists()
    estimated = torch.empty(0).is_meta
    try:
        return Backbone(name, None if random or estimated else weights, in_chans=in_chans, weights_key=key, **arguments)
    except (ValueError, TypeError) as error:
        reason = str(error)
        for other, own in (
            ("model.weights_key", "method.teacher_weights_key"),
            ("model.weights", "method.teacher_weights"),
            ("model.arguments", "method.teacher_arguments"),
            ("model.backbone", "method.teacher"),
        ):
            reason = reason.replace(other, own)
        raise ValueError(f"the teacher {name}: {reason}") from error
