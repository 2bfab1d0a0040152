"""Fractal flames, in classes: the stream after Draves & Reckase, "The Fractal Flame Algorithm" (2003)."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..diamond_square import levels_for
from ..options import checked_flags, checked_integer, checked_number, checked_span
from ..stream import Stream
from .code import MOST_MAPS
from .kernel import Settings, render_slice

#: Most classes whose accepted attempt is cached.
_REMEMBERED = 2**16


@register("generator", "flame")
class FlameStream(Stream):
    """Endless stream of fractal flames: sample `index` is instance index // classes of class index % classes.

    A class is a system of maps, each an affine map followed by a mixture of up to three of twenty nonlinear variations; an
    instance changes its numbers a little and has a view, colors, brightness and a background of its own.

    - size: pixels per side. points: points of the chaos game per image, in whole 1024s. seed: another seed, other systems.
    - classes: number of systems; the label of a sample is its class. maps: fewest and most maps of a system (2 to 8).
    - symmetry: share of classes with a rotational symmetry of order 2 to 6. final: share with a final transform of the points.
    - variation: how far instances move (0 to 2).
    - filling_rate: share of the pixels that a class must light in a test (0 to 0.5).
    - color: random palettes, else their brightness. background: diamond-square clouds, else black.
    - threads: render slices of a batch in parallel.

    A sample has the same bytes whatever the rest of the batch, the threads, the process or the machine.
    Raises ValueError for arguments out of range.
    """

    name = "flame"
    kernels = (render_slice,)

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 1000,
        maps: tuple[int, int] = (2, 5),
        symmetry: float = 0.3,
        final: float = 0.4,
        variation: float = 1.0,
        filling_rate: float = 0.2,
        color: bool = True,
        background: bool = False,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        fewest, most = checked_span("maps", maps, 2, MOST_MAPS, whole=True)
        color, background = checked_flags(color=color, background=background)
        self._settings = Settings(
            checked_integer("points", points, 1, 10_000_000),
            fewest,
            most,
            checked_number("symmetry", symmetry, 0.0, 1.0),
            checked_number("final", final, 0.0, 1.0),
            checked_number("variation", variation, 0.0, 2.0),
            checked_number("filling_rate", filling_rate, 0.0, 0.5),
            color,
            background,
            levels_for(self.size),
        )
        # The accepted attempt is a function of the class and is cached here (-1: not known yet), so that later instances skip
        # the search.
        self._taken = np.full(min(self.num_classes, _REMEMBERED), -1, np.int8)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        render_slice(self.stream_key, indices, self.num_classes, self._settings, self._taken, batch.images)
