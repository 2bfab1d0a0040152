"""LeJEPA (Balestriero & LeCun, 2025): all views predict the mean of the global ones, and embeddings are normally distributed."""

from itertools import pairwise
from math import pi
from typing import Annotated

import torch
from lightly.models.modules.heads import ProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses import characteristic_function, epps_pulley
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Fraction, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.gather import average_over_ranks, world_size
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "lejepa")
class LeJEPA(ComparingMethod):
    """(1 − λ) · mean (z_v − mean of the global views)² + λ · SIGReg, without teacher, predictor or stopped gradient (eq. 8).

    The views of the first group are the global ones. SIGReg is the mean over views and `slices` random directions, new in every
    step, of the Epps-Pulley statistic of the global batch, at `knots` points up to `t_max`. `regularization` is λ.
    """

    needs = Needs(views=(2, None), float32_views=False, images=2)
    usual = Usual("Balestriero & LeCun, 2025, section 6", optimizers=("adamw",), weight_decay=True, batch_size=64)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        regularization: Fraction = 0.05,
        slices: Count = 1024,
        knots: Annotated[int, Field(ge=2)] = 17,
        t_max: Positive = 3.0,
        projection_layers: Count = 3,
        projection_hidden: Count = 2048,
        projection_size: Count = 64,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        widths = [backbone.width, *[projection_hidden] * (projection_layers - 1)]
        blocks: list = [(a, b, nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(widths)]
        self.projection = ProjectionHead([*blocks, (widths[-1], projection_size, None, None)])
        self.regularization, self.slices, self.projection_size = regularization, slices, projection_size
        self.knots, self.t_max = knots, t_max
        self._directions: Tensor  # of the current step
        self._global_views: int

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, batch.views)
        return Embedded({"z": full_precision(embeddings)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        if batch.part == 0:
            self._global_views = len(batch.views[0])
            self._directions = random_directions(batch, self.projection_size, self.slices)
        return {}

    def gather(self, name: str, x: Tensor) -> Tensor:
        return x  # the characteristic functions of all ranks are averaged instead, which is less

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        z = embeddings["z"]
        prediction = (z - z[: self._global_views].mean(dim=0)).square().mean()
        own = characteristic_function(z, self._directions, self.knots, self.t_max)
        sigreg = epps_pulley(average_over_ranks(own), z.shape[1] * world_size(), self.t_max).mean()
        loss = (1 - self.regularization) * prediction + self.regularization * sigreg
        seen = z.detach()
        metrics = {
            "prediction": prediction.detach(),
            "sigreg": sigreg.detach(),
            "deviation": seen.std(dim=1).mean(),  # 1 for a standard normal distribution, 0 on collapse
            "embedding_std": embedding_std(F.normalize(seen, dim=-1)),
        }
        return Output(loss, metrics, embeddings=seen)

    def collapsed_loss(self, images: int) -> float:
        constant = torch.zeros(2, self.knots)
        constant[0] = 1
        return self.regularization * float(epps_pulley(constant, images, self.t_max))  # all embeddings are 0


def random_directions(batch: Batch, dimensions: int, number: int) -> Tensor:
    """Unit columns float[dimensions, number], uniform on the sphere: a function of seed and step."""
    radius, angle = batch.uniform_of_step("directions", 2, dimensions, number)
    normal = (-2 * (1 - radius).log()).sqrt() * (2 * pi * angle).cos()  # Box & Muller, 1958
    return F.normalize(normal, dim=0)
