"""Textures from random expressions: endless classes of patterns from a small grammar."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..options import checked_flags, checked_integer, checked_number, checked_span
from ..palette import STYLE
from ..stream import Stream
from .grammar import LONGEST
from .kernel import TRIAL, render_slice
from .machine import run_width
from .ops import MOST_INSTRUCTIONS, PARAMETERS
from .text import program_text

#: Most classes whose accepted attempt is cached.
_REMEMBERED = 2**16
#: Samples a side, at most: their number is then counted exactly in single precision.
_FINEST_GRID = 4096


@register("generator", "texture")
class TextureStream(Stream):
    """Endless stream of textures: sample `index` is instance index // classes of class index % classes.

    A class is a random program over the plane: patterns and noise, in a plane that is tiled, folded, turned or warped,
    combined by functions, colored by a palette. An instance moves the program's numbers, redraws noise and phases, and has
    a view and colors of its own.

    - size: pixels per side; an image four times as wide shows twice as much of the plane.
    - seed: another seed gives other programs.
    - classes: number of programs; the label of a sample is its class.
    - complexity: fewest and most instructions of a program (1 to 16), not counting the patterns that they apply to.
    - variation: how far instances move (0 to 2): 1 changes frequencies by an eighth, turns views by up to a tenth of a circle.
    - color: random palettes, else grays. oversampling: samples of a pixel each way, 1 to 4; 1 is fastest and has jagged edges.
    - threads: render slices of a batch in parallel.

    A sample has the same bytes whatever the rest of the batch, the threads, the process or the machine.
    No image is flat or plain noise. Raises ValueError for arguments out of range.
    """

    name = "texture"
    kernels = (render_slice,)

    def __init__(
        self,
        *,
        size: int = 224,
        seed: int = 0,
        classes: int = 1000,
        complexity: tuple[int, int] = (2, 6),
        variation: float = 1.0,
        color: bool = True,
        oversampling: int = 2,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        self.complexity = checked_span("complexity", complexity, 1, MOST_INSTRUCTIONS, whole=True)
        self.variation = checked_number("variation", variation, 0.0, 2.0)
        self.oversampling = checked_integer("oversampling", oversampling, 1, 4)
        if self.size * self.oversampling > _FINEST_GRID:
            raise ValueError(f"size × oversampling must be {_FINEST_GRID} or less, not {size} × {oversampling}")
        (self.color,) = checked_flags(color=color)
        # A class may reject several programs before it accepts one. The accepted attempt is a function of the class and is
        # cached here (-1: not known yet), so that later instances skip the search.
        self._taken = np.full(min(self.num_classes, _REMEMBERED), -1, np.int8)

    def program(self, label: int) -> str:
        """The program of a class as text, without what its instances change."""
        label = checked_integer("label", label, 0, self.num_classes - 1)
        return program_text(*self._run(np.array([label]), np.empty((0, self.size, self.size, 3), np.uint8)))

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        self._run(indices, batch.images)

    def _run(self, indices: NDArray[np.int64], images: NDArray[np.uint8]) -> tuple:
        """Render into `images`; returns the program and the style of the last class."""
        codes, parameters = np.empty(LONGEST, np.int32), np.empty((LONGEST, PARAMETERS), np.float32)
        lengths, style = np.zeros(2, np.int64), np.empty(STYLE)
        render_slice(
            self.stream_key,
            indices,
            self.num_classes,
            *self.complexity,
            self.variation,
            self.color,
            self.oversampling,
            max(run_width(self.size * self.oversampling), run_width(TRIAL)),
            self._taken,
            codes,
            parameters,
            lengths,
            style,
            images,
        )
        return codes, parameters, lengths, style
