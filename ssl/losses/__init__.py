"""Losses as pure functions of embeddings, one per file. All arithmetic is in float32 or float64."""

from wildfern.ssl.losses.cacr import CACRLoss, CACRTerms
from wildfern.ssl.losses.cacr_momentum import MomentumCACRLoss
from wildfern.ssl.losses.dino import DINOLoss
from wildfern.ssl.losses.info_nce import info_nce, queue_info_nce
from wildfern.ssl.losses.ntxent import NTXentLoss

__all__ = ["CACRLoss", "CACRTerms", "DINOLoss", "MomentumCACRLoss", "NTXentLoss", "info_nce", "queue_info_nce"]
