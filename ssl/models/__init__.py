"""Backbones by timm name, heads, the momentum teacher and batch normalization over all ranks."""

from wildfern.ssl.models.backbone import build_backbone
from wildfern.ssl.models.batch_norm import synchronize_batch_norm
from wildfern.ssl.models.small_alexnet import SmallAlexNet
from wildfern.ssl.models.teacher import MomentumTeacher, cosine_momentum

__all__ = ["MomentumTeacher", "SmallAlexNet", "build_backbone", "cosine_momentum", "synchronize_batch_norm"]
