"""Losses as pure functions of embeddings, one per file. All arithmetic is in float32 or float64."""

from wildfern.ssl.losses.cacr import CACRLoss, CACRTerms
from wildfern.ssl.losses.cacr_momentum import MomentumCACRLoss
from wildfern.ssl.losses.cacr_queue import QueueCACRLoss
from wildfern.ssl.losses.dino import DINOLoss
from wildfern.ssl.losses.info_nce import info_nce, queue_info_nce
from wildfern.ssl.losses.koleo import koleo_loss
from wildfern.ssl.losses.masked_tokens import masked_token_loss
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
    "QueueCACRLoss",
    "characteristic_function",
    "epps_pulley",
    "info_nce",
    "koleo_loss",
    "masked_token_loss",
    "queue_info_nce",
    "sinkhorn",
    "swapped_prediction",
]
