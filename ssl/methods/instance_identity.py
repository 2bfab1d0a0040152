"""Instance discrimination by a classifier whose classes are the images themselves.

The surrogate classes of Exemplar-CNN (Dosovitskiy et al., "Discriminative Unsupervised Feature Learning with Convolutional
Neural Networks", NeurIPS 2014): a class is one image under all its augmentations. With a temperature, the logits are cosines of
the embedding and a weight for each image (Cao et al., "Parametric Instance Classification", NeurIPS 2020), like the cosines
with a memory bank of Wu et al. (CVPR 2018, eq. 2).
"""

from math import log

import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.methods.base import Count, Method, Needs, Positive, embedding_std
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone


@register("method", "instance_identity")
class InstanceIdentity(Method):
    """Every image is a class of its own, in all its views: cross entropy over `instances` classes, the images of `data`.

    `temperature` null: a linear layer on the backbone (Exemplar-CNN), without projection. Images of endless sources have no
    number, hence loss 0; `data.source: finite` repeats the first images of a stream. An unreadable image keeps its own class and
    shows the image that replaces it.
    """

    needs = Needs(views=(1, None), items=True, float32_views=False)
    usual = Usual("Wu et al., 2018, and Cao et al., 2020", optimizers=("sgd",))

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        instances: Count,
        temperature: Positive | None = 0.1,
        projection_hidden: Count = 2048,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        self.backbone, self.instances, self.temperature = backbone, instances, temperature
        if temperature is None:
            self.classifier: nn.Module = nn.Linear(backbone.width, instances)
        else:
            self.projection = SimCLRProjectionHead(backbone.width, projection_hidden, projection_size)
            self.classifier = CosineClassifier(projection_size, instances)

    def forward(self, batch: Batch) -> Output:
        items = batch.items
        assert items is not None  # required by `needs`
        if self.temperature is None:
            logits, features = self.encode(self.classifier, batch.views)
            z, logits = None, full_precision(logits)
        else:
            embeddings, features = self.encode(self.projection, batch.views)
            z = F.normalize(full_precision(embeddings), dim=-1)
            logits = self.classifier(z) / self.temperature
        known = (items >= 0).float()
        target = items.clamp_min(0).expand(len(logits), -1)
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        metrics = {"accuracy": ((logits[0].argmax(-1) == items) & (items >= 0)).float().mean()}
        if z is not None:
            metrics["embedding_std"] = embedding_std(z)
        views = None if z is None or len(z) < 2 else z
        return Output((each * known).mean(), metrics, features, views)

    def collapsed_loss(self, images: int) -> float:
        return log(self.instances)


class CosineClassifier(nn.Module):
    """Cosines of unit embeddings float[..., D] with one weight for each of `classes` classes: float[..., classes]."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, size))
        nn.init.normal_(self.weight, std=size**-0.5)

    def forward(self, z: Tensor) -> Tensor:
        with without_autocast(z):
            return z @ F.normalize(full_precision(self.weight), dim=-1).T
