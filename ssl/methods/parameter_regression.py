"""Regression of the parameters that images were rendered with: an objective that only synthetic images have.

The targets of inverse graphics: what a renderer was given, predicted from its image, by the mean square error or by Huber's loss
("smooth L1": Girshick, "Fast R-CNN", ICCV 2015, eq. 3).
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.models.backbone import Backbone


@register("method", "parameter_regression")
class ParameterRegression(Method):
    """A linear layer on the backbone predicts the P = `parameters` standardized parameters of the image from every view.

    The loss is the mean over views, images and parameters; images without parameters (NaN) have loss 0. `r2` in the log is the
    share of variance that the predictions of the batch explain: 0 for the mean of the data, 1 for the parameters. Augmentations
    must keep the parameters: see docs/methods.md.
    """

    needs = Needs(views=(1, None), parameters=True, float32_views=False)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        parameters: Count,
        loss: Literal["mse", "smooth_l1"] = "mse",
    ) -> None:
        super().__init__()
        self.backbone, self.num_parameters, self.kind = backbone, parameters, loss
        self.regressor = nn.Linear(backbone.width, parameters)

    def forward(self, batch: Batch) -> Output:
        target = batch.parameters
        assert target is not None  # required by `needs`
        if target.shape[1] != self.num_parameters:
            raise ValueError(
                f"method.parameters is {self.num_parameters}, but the data has {target.shape[1]} parameters"
            )
        predicted, features = self.encode(self.regressor, batch.views)
        predicted = full_precision(predicted)
        known = target.isfinite().to(predicted.dtype)
        target = target.nan_to_num(0.0).to(predicted.dtype).expand_as(predicted)
        error = F.mse_loss if self.kind == "mse" else F.smooth_l1_loss
        loss = (error(predicted, target, reduction="none") * known).mean()
        with torch.no_grad():
            variance = (target.square() * known).sum()
            r2 = 1 - ((predicted - target).square() * known).sum() / variance.clamp_min(1e-12)
        return Output(loss, {"r2": r2}, features)

    def collapsed_loss(self, images: int) -> float | None:
        return 1.0 if self.kind == "mse" else None
