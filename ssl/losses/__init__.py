"""Losses as pure functions of embeddings, one per file. All arithmetic is in float32 or float64."""

from wildfern.ssl.losses.cacr import CACRLoss, CACRTerms
from wildfern.ssl.losses.cacr_momentum import MomentumCACRLoss
from wildfern.ssl.losses.dino import DINOLoss
from wildfern.ssl.losses.ntxent import NTXentLoss
from wildfern.ssl.losses.sigreg import characteristic_function, epps_pulley
from wildfern.ssl.losses.sinkhorn import sinkhorn
from wildfern.ssl.losses.swapped_prediction import swapped_prediction

__all__ = [
    "CACRLoss",
    "CACRTerms",
    "DINOLoss",
    "MomentumCACRLoss",
    "NTXentLoss",
    "characteristic_function",
    "epps_pulley",
    "sinkhorn",
    "swapped_prediction",
]
