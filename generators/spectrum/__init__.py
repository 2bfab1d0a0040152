"""Colored noise."""

from .spectrum import SpectrumStream

__all__ = ["SpectrumStream"]
