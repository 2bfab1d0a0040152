"""Supervised pretraining on the labels of rendered images.

Classification of the fractal class (FractalDB, Kataoka et al., 2020), and multi-instance prediction: which fractals of the
code book an image contains (Anderson & Farrell, 2022, section 3.4).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.models.backbone import Backbone


@register("method", "supervised")
class Supervised(Method):
    """A linear layer on the backbone predicts the labels of every view; `classes` must equal that of the data source.

    One label per image: cross entropy. Multi-hot labels (`data.source: ifs_multi`): binary cross entropy, in which the
    positives of an image together have weight K, the number of classes. Unlabeled images (-1) have loss 0; the loss is the mean
    over all images of the batch.
    """

    needs = Needs(views=(1, None), labels="any", float32_views=False)

    def __init__(self, backbone: Backbone, total_steps: int, *, classes: Count) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self.classifier = nn.Linear(backbone.width, classes)

    def forward(self, batch: Batch) -> Output:
        logits, features = self.encode(self.classifier, batch.views)
        logits, labels = full_precision(logits), batch.labels
        assert labels is not None  # required by `needs`
        if labels.ndim == 2:
            if labels.shape[1] != self.classes:
                raise ValueError(f"method.classes is {self.classes}, but the data has {labels.shape[1]} classes")
            loss, accuracy = multi_instance_loss(logits, labels), _multi_hot_accuracy(logits, labels)
        else:
            known = (labels >= 0).float()
            target = labels.clamp_min(0).expand(len(logits), -1)
            each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
            loss = (each * known).mean()
            accuracy = ((logits[0].argmax(-1) == labels) & (labels >= 0)).float().mean()
        return Output(loss, {"accuracy": accuracy.detach()}, features)


def multi_instance_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of logits float[V, n, K] with labels uint8[n, K], averaged over everything.

    Each positive of an image with P positives has weight K / P (Anderson & Farrell, 2022).
    """
    target = labels.to(logits.dtype)
    positive_weight = target.shape[1] / target.sum(dim=1, keepdim=True).clamp_min(1)
    return F.binary_cross_entropy_with_logits(
        logits, target.expand_as(logits), pos_weight=positive_weight.expand_as(target)
    )


@torch.no_grad()
def _multi_hot_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of images whose P highest scores in the first view are exactly their P labels."""
    count = labels.sum(dim=1, keepdim=True).long()
    rank = logits[0].argsort(dim=1, descending=True).argsort(dim=1)
    return ((rank < count) == labels.bool()).all(dim=1).float().mean()
