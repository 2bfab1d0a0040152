"""SimSiam (Chen & He, 2021): two views predict each other's projections; the stopped gradient alone prevents collapse."""

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs, ParameterGroup, embedding_std
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.gather import all_gather_embeddings
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "simsiam")
class SimSiam(Method):
    """−½ cos(p₁, z₂) − ½ cos(p₂, z₁) with predictions p and projections z, which get no gradient here (algorithm 1).

    With `constant_predictor_rate` the predictor's learning rate does not follow the schedule, warm-up included (appendix B).
    """

    needs = Needs(views=(2, 2), full_size_views=2, float32_views=False)
    usual = Usual("Chen & He, 2021, section 4", weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        projection_hidden: Count = 2048,
        projection_size: Count = 2048,
        predictor_hidden: Count = 512,
        constant_predictor_rate: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.constant_predictor_rate = backbone, constant_predictor_rate
        self.projection = SimSiamProjectionHead(backbone.width, projection_hidden, projection_size)
        self.predictor = SimSiamPredictionHead(projection_size, predictor_hidden, projection_size)
        self.loss = NegativeCosineSimilarity(dim=-1)

    def forward(self, batch: Batch) -> Output:
        projections, features = self.encode(self.projection, batch.views)
        predictions = full_precision(self.predictor(projections.flatten(0, 1)).unflatten(0, (2, -1)))
        targets = full_precision(projections).detach()
        loss = self.loss(predictions, targets.flip(0))
        z = all_gather_embeddings(F.normalize(targets, dim=-1))
        return Output(loss, {"embedding_std": embedding_std(z.flatten(0, 1)[None])}, features, z)

    def parameter_groups(self) -> list[ParameterGroup]:
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        return [
            ParameterGroup([(name, p) for name, p in named if not name.startswith("predictor.")]),
            ParameterGroup(
                [(name, p) for name, p in named if name.startswith("predictor.")],
                "predictor",
                constant_rate=self.constant_predictor_rate,
            ),
        ]
