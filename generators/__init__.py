"""Synthetic images: streams in which every sample is a function of (stream, seed, index)."""

import inspect
from typing import Any

from wildfern.registry import GENERATORS

from .batch import ImageBatch
from .contours import ContoursStream
from .dead_leaves import DeadLeavesStream
from .flame import FlameStream
from .fractals import FractalDBStream, IFSMultiStream, IFSPairStream, IFSStream, OneFractalStream
from .lsystem import LSystemStream
from .neural_fractal import NeuralFractalStream
from .options import checked_choice, nearest
from .spectrum import SpectrumStream
from .stream import Stream
from .texture import TextureStream

#: Streams by name, those of other packages and plugins included, as recipes and `make_stream` take them.
STREAMS = GENERATORS

__all__ = [
    "STREAMS",
    "ContoursStream",
    "DeadLeavesStream",
    "FlameStream",
    "FractalDBStream",
    "IFSMultiStream",
    "IFSPairStream",
    "IFSStream",
    "ImageBatch",
    "LSystemStream",
    "NeuralFractalStream",
    "OneFractalStream",
    "SpectrumStream",
    "Stream",
    "TextureStream",
    "make_stream",
]


def make_stream(name: str, **arguments: Any) -> Stream:
    """Build a stream by name; `arguments` are those of its class in `STREAMS`.

    Raises ValueError for an unknown name or argument, with the nearest valid one, and for values out of range.
    """
    stream = STREAMS[checked_choice("stream", name, list(STREAMS))]
    valid = list(inspect.signature(stream).parameters)
    for argument in arguments:
        if argument not in valid:
            raise ValueError(f"the stream {name!r} has no argument {argument!r}: {nearest(argument, valid)}")
    built: Stream = stream(**arguments)
    return built
