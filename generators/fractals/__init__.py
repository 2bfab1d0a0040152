"""Fractals of iterated function systems: one, several or two of the same, by singular values or by parameters."""

from .fractaldb import FractalDBStream
from .ifs import IFSStream
from .ifs_scenes import IFSMultiStream, IFSPairStream
from .one_fractal import OneFractalStream

__all__ = ["FractalDBStream", "IFSMultiStream", "IFSPairStream", "IFSStream", "OneFractalStream"]
