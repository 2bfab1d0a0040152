"""MoCo v3 (Chen, Xie & He, 2021): a predictor and a momentum encoder, contrasted over the global batch without a queue."""

from math import log

from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.losses.info_nce import info_nce
from wildfern.ssl.methods.base import Count, Fraction, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import own_images, world_size
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.heads import moco_v3_projector
from wildfern.ssl.models.teacher import cosine_momentum


@register("method", "moco_v3")
class MoCoV3(ComparingMethod):
    """ctr(q₁, k₂) + ctr(q₂, k₁) with ctr = 2τ InfoNCE (algorithm 1); the teacher's momentum rises to 1 by a cosine schedule.

    `freeze_patch_embedding` keeps a vision transformer's patch projection as initialized, which made training stable in the
    paper (section 4.1); ValueError for other networks.
    """

    needs = Needs(views=(2, 2), full_size_views=2, float32_views=False, images=2)
    usual = Usual(
        "Chen, Xie & He, 2021, section 4",
        optimizers=("adamw",),
        only_transformers=True,
        warmup=True,
        weight_decay=True,
        batch_size=32,
    )

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        temperature: Positive = 0.2,
        momentum: Fraction = 0.99,
        projection_layers: Count = 3,
        projection_hidden: Count = 4096,
        projection_size: Count = 256,
        freeze_patch_embedding: bool = False,
    ) -> None:
        super().__init__()
        if freeze_patch_embedding:
            embedding = getattr(backbone.network, "patch_embed", None)
            if not isinstance(embedding, nn.Module):
                raise ValueError(
                    "freeze_patch_embedding needs a network with a patch embedding, for instance vit_small_patch16_224; "
                    f"got {backbone.name}"
                )
            embedding.requires_grad_(False)
        self.backbone, self.temperature = backbone, temperature
        self.projector = moco_v3_projector(backbone.width, projection_hidden, projection_size, projection_layers)
        self.predictor = moco_v3_projector(projection_size, projection_hidden, projection_size, 2)
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "projector"), lambda step: cosine_momentum(momentum, step, total_steps)
        )

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(nn.Sequential(self.projector, self.predictor), batch.views)
        return Embedded({"queries": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        keys = full_precision(self.teacher(batch.views[0].flatten(0, 1))).unflatten(0, (2, -1))
        return {"keys": F.normalize(keys, dim=-1)}

    def collapsed_loss(self, images: int) -> float:
        return 4 * self.temperature * log(images)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        queries, keys = embeddings["queries"], embeddings["keys"]
        own = own_images(keys.shape[1])
        contrast = [info_nce(queries[view], keys[1 - view], self.temperature, rows=own) for view in range(2)]
        metrics = {"embedding_std": embedding_std(queries), "key_std": embedding_std(keys)}
        loss = world_size() * 2 * self.temperature * (contrast[0] + contrast[1])
        return Output(loss, metrics, embeddings=queries)
