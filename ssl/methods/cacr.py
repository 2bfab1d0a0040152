"""CACR (Zheng et al.): attracts distant positives and repels close negatives."""

from math import log
from typing import Annotated, Literal

from lightly.models.modules.heads import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses import CACRLoss, MomentumCACRLoss
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Needs, NotNegative, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import moco_v3_projector
from wildfern.ssl.models.teacher import cosine_momentum


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
        projection: Literal["linear", "mlp"] = "linear",
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        if projection == "linear":
            self.projection: nn.Module = nn.Linear(backbone.width, projection_size)
        else:
            self.projection = SimCLRProjectionHead(backbone.width, projection_hidden, projection_size)
        self.loss = CACRLoss(alpha, beta, tau_pos, tau_neg, weighted_positive, weighted_negative, detach_weights)

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"z": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def collapsed_loss(self, images: int) -> float:
        return 0.0  # all distances are

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        terms = self.loss.forward(z)  # without DeepSpeed's hooks, which find no tensors in CACRTerms (ZeRO 3)
        metrics = {"attraction": terms.attraction, "repulsion": terms.repulsion, "embedding_std": embedding_std(z)}
        return Output(terms.total, {name: value.detach() for name, value in metrics.items()}, embeddings=z)


@register("method", "cacr_momentum")
class MomentumCACR(ComparingMethod):
    """CACR with MoCo v3's networks, for ImageNet: all views are queries, the first two are also keys.

    A query is not compared with the key of the same view. With two views and `cost="rbf"` this equals MoCo v3, but not with
    local crops (`views: multicrop`) or `cost="euclidean"`.
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
        momentum: Annotated[float, Field(ge=0, le=1)] = 0.996,
        projection_layers: Annotated[int, Field(ge=1)] = 2,
        projection_hidden: Count = 4096,
        projection_size: Count = 256,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        projector = moco_v3_projector(backbone.width, projection_hidden, projection_size, projection_layers)
        self.projector = projector
        self.predictor = moco_v3_projector(projection_size, projection_hidden, projection_size, 2)
        self.loss = MomentumCACRLoss(temperature, cost)
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "projector"), lambda step: cosine_momentum(momentum, step, total_steps)
        )

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(nn.Sequential(self.projector, self.predictor), batch.views)
        return Embedded({"queries": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"keys": full_precision(self.teacher(batch.views[0].flatten(0, 1))).unflatten(0, (2, -1))}

    def collapsed_loss(self, images: int) -> float | None:
        return 2 * self.loss.temperature * log(images) if self.loss.cost == "rbf" else None

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        queries, keys = embeddings["queries"], embeddings["keys"]
        others = [[v for v in range(len(queries)) if v != key] for key in range(2)]
        loss = sum(self.loss(queries[other], keys[key]) for key, other in enumerate(others)) / 2
        return Output(loss, {"embedding_std": embedding_std(queries)}, embeddings=queries[:2])
