"""Losses as pure functions of embeddings, one per file. All arithmetic is in float32 or float64."""

from wildfern.ssl.losses.cacr import CACRLoss, CACRTerms
from wildfern.ssl.losses.cacr_momentum import MomentumCACRLoss
from wildfern.ssl.losses.dino import DINOLoss
from wildfern.ssl.losses.ntxent import NTXentLoss
from wildfern.ssl.losses.sinkhorn import sinkhorn

__all__ = ["CACRLoss", "CACRTerms", "DINOLoss", "MomentumCACRLoss", "NTXentLoss", "sinkhorn"]
