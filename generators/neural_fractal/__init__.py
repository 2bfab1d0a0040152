"""Escape-time sets of random complex networks."""

from .neural_fractal import NeuralFractalStream

__all__ = ["NeuralFractalStream"]
