"""Losses as pure functions of embeddings; each file one loss, each class one formula. All arithmetic is float32 or better."""

from wildfern.ssl.losses.cacr import CACRLoss, CACRTerms
from wildfern.ssl.losses.cacr_momentum import MomentumCACRLoss
from wildfern.ssl.losses.dino import DINOLoss
from wildfern.ssl.losses.ntxent import NTXentLoss

__all__ = ["CACRLoss", "CACRTerms", "DINOLoss", "MomentumCACRLoss", "NTXentLoss"]
