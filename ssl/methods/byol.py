"""BYOL (Grill et al., 2020): predicts a momentum teacher's projection of another view, without negatives."""

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Fraction, Method, Needs, ParameterGroup, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.gather import all_gather_embeddings
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.teacher import cosine_momentum


@register("method", "byol")
class BYOL(Method):
    """‖q̄₁ − z̄′₂‖² + ‖q̄₂ − z̄′₁‖² of unit predictions q̄ and the teacher's unit projections z̄′ (eq. 2), averaged over images.

    The teacher's momentum rises to 1 by a cosine schedule. `predictor_rate` multiplies the predictor's learning rate.
    """

    needs = Needs(views=(2, 2), full_size_views=2, float32_views=False)
    usual = Usual("Grill et al., 2020, section 3.3", weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        momentum: Fraction = 0.996,
        projection_hidden: Count = 4096,
        projection_size: Count = 256,
        predictor_hidden: Count = 4096,
        predictor_rate: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.backbone, self.predictor_rate = backbone, predictor_rate
        self.projection = BYOLProjectionHead(backbone.width, projection_hidden, projection_size)
        self.predictor = BYOLPredictionHead(projection_size, predictor_hidden, projection_size)
        self.loss = NegativeCosineSimilarity(dim=-1)
        self.teacher = self.add_teacher(
            "teacher", ("backbone", "projection"), lambda step: cosine_momentum(momentum, step, total_steps)
        )

    def forward(self, batch: Batch) -> Output:
        projections, features = self.encode(self.projection, batch.views)
        predictions = full_precision(self.predictor(projections.flatten(0, 1)).unflatten(0, (2, -1)))
        targets = full_precision(self.teacher(batch.views[0].flatten(0, 1)).unflatten(0, (2, -1)))
        loss = 4 + 4 * self.loss(predictions, targets.flip(0))  # ‖q̄ − z̄‖² = 2 − 2cos; the mean over views, times 2
        z = all_gather_embeddings(torch.nn.functional.normalize(full_precision(projections).detach(), dim=-1))
        return Output(loss, {"embedding_std": embedding_std(z.flatten(0, 1)[None])}, features, z)

    def parameter_groups(self) -> list[ParameterGroup]:
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        return [
            ParameterGroup([(name, p) for name, p in named if not name.startswith("predictor.")]),
            ParameterGroup(
                [(name, p) for name, p in named if name.startswith("predictor.")], "predictor", self.predictor_rate
            ),
        ]
