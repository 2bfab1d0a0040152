"""Leaves that cover one another."""

from .dead_leaves import DeadLeavesStream

__all__ = ["DeadLeavesStream"]
