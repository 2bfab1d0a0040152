"""A dense task that reads masks, as a plugin of another project: one linear layer on the last feature map."""

from torch import nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods import Batch, Method, Needs, Output
from wildfern.ssl.models import Backbone


@register("method", "toy_segmentation")
class ToySegmentation(Method):
    """Binary cross entropy between a mask (0 or more) and the upsampled prediction, for every view."""

    needs = Needs(views=(1, None), masks=True, float32_views=False)

    def __init__(self, backbone: Backbone, total_steps: int, *, level: int = 1, channels: int = 16) -> None:
        super().__init__()
        self.backbone, self.level = backbone, level
        self.predict = nn.Conv2d(channels, 1, 1)

    def forward(self, batch: Batch) -> Output:
        losses, overlaps = [], []
        for views, masks in zip(batch.views, batch.masks, strict=True):
            maps = self.backbone.maps(views.flatten(0, 1))[self.level]
            logits = F.interpolate(full_precision(self.predict(maps)), size=views.shape[-2:], mode="bilinear")[:, 0]
            target = (masks.flatten(0, 1) > 0).to(logits.dtype)
            losses.append(F.binary_cross_entropy_with_logits(logits, target))
            overlaps.append(((logits > 0) == target.bool()).float().mean())
        return Output(sum(losses) / len(losses), {"pixel_accuracy": sum(overlaps).detach() / len(overlaps)})
