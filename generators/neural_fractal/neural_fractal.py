"""Neural fractals: escape-time sets of random complex networks, after arXiv 2506.19465 (2025)."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..options import checked_flags, checked_integer, checked_number, checked_span
from ..stream import Stream
from .fractal_class import Settings
from .kernel import render_slice
from .network import MOST_LAYERS, MOST_UNITS

#: Most classes whose accepted attempt is cached.
_REMEMBERED = 2**16


@register("generator", "neural_fractal")
class NeuralFractalStream(Stream):
    """Endless stream of neural fractals: sample `index` is instance index // classes of class index % classes.

    A pixel c shows after how many iterations of z ← g(z) + c, from z = 0, |z| exceeds a threshold; g is a random complex
    network with tanh units, raised to a power. The threshold is measured for each image: it is what a share of the pixels
    exceeds. A class is a network and a view; an instance moves both a little and has colors of its own.

    - size: pixels per side. seed: another seed gives other networks.
    - classes: number of networks; the label of a sample is its class.
    - units: units of a hidden layer (1 to 16). layers: hidden layers (1 to 6). power: of the network's value (1 to 8).
    - iterations: fewest and most iterations of a class (4 to 64).
    - variation: how far instances move (0 to 2).
    - color: random palettes, else their brightness. oversampling: samples of a pixel each way (1 to 4).
    - threads: render slices of a batch in parallel.

    A sample has the same bytes whatever the rest of the batch, the threads, the process or the machine.
    Raises ValueError for arguments out of range.
    """

    name = "neural_fractal"
    kernels = (render_slice,)

    def __init__(
        self,
        *,
        size: int = 224,
        seed: int = 0,
        classes: int = 1000,
        units: int = 6,
        layers: int = 3,
        power: int = 3,
        iterations: tuple[int, int] = (6, 16),
        variation: float = 1.0,
        color: bool = True,
        oversampling: int = 1,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        fewest, most = checked_span("iterations", iterations, 4, 64, whole=True)
        (color,) = checked_flags(color=color)
        self._settings = Settings(
            checked_integer("units", units, 1, MOST_UNITS),
            checked_integer("layers", layers, 1, MOST_LAYERS),
            checked_integer("power", power, 1, 8),
            fewest,
            most,
            checked_number("variation", variation, 0.0, 2.0),
            color,
            checked_integer("oversampling", oversampling, 1, 4),
        )
        # The accepted attempt is a function of the class and is cached here (-1: not known yet), so that later instances skip
        # the search.
        self._taken = np.full(min(self.num_classes, _REMEMBERED), -1, np.int8)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        render_slice(self.stream_key, indices, self.num_classes, self._settings, self._taken, batch.images)
