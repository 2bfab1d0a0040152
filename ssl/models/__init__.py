"""Backbones by name, heads, the momentum teacher and batch normalization over all ranks."""

from wildfern.ssl.models.backbone import Backbone, Tokens
from wildfern.ssl.models.batch_norm import synchronize_batch_norm
from wildfern.ssl.models.decoders import FPNDecoder, UNetDecoder, make_decoder
from wildfern.ssl.models.small_alexnet import SmallAlexNet
from wildfern.ssl.models.teacher import MomentumTeacher, cosine_momentum, linear_momentum
from wildfern.ssl.models.unet_encoder import UNetEncoder

__all__ = [
    "Backbone",
    "FPNDecoder",
    "MomentumTeacher",
    "SmallAlexNet",
    "Tokens",
    "UNetDecoder",
    "UNetEncoder",
    "cosine_momentum",
    "linear_momentum",
    "make_decoder",
    "synchronize_batch_norm",
]
