"""The dead-leaves model: random shapes that occlude one another."""

from .dead_leaves import DeadLeavesStream

__all__ = ["DeadLeavesStream"]
