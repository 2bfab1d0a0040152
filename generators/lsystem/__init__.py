"""Branching lines from a stochastic L-system, with exact masks."""

from .lsystem import LSystemStream

__all__ = ["LSystemStream"]
