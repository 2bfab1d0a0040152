"""Branching lines grown by a grammar, with exact masks."""

from .lsystem import LSystemStream

__all__ = ["LSystemStream"]
