"""Fractal flames: iterated function systems of nonlinear maps, shown by the logarithm of their density."""

from .flame import FlameStream

__all__ = ["FlameStream"]
