"""Backbones by name, heads, the momentum teacher and batch normalization over all ranks."""

from wildfern.ssl.models.backbone import Backbone, Tokens
from wildfern.ssl.models.batch_norm import synchronize_batch_norm
from wildfern.ssl.models.small_alexnet import SmallAlexNet
from wildfern.ssl.models.teacher import MomentumTeacher, cosine_momentum, linear_momentum

__all__ = [
    "Backbone",
    "MomentumTeacher",
    "SmallAlexNet",
    "Tokens",
    "cosine_momentum",
    "linear_momentum",
    "synchronize_batch_norm",
]
