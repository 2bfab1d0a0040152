"""Dead leaves: random shapes that occlude one another, after Baradad et al. (NeurIPS 2021)."""

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..options import checked_choice, checked_flags, checked_number, checked_span
from ..stream import Stream
from .kernel import render_slice
from .sampler import SHAPES, Shapes

#: Leaves per pixel, at most. A safe bound: the smallest triangles, of half a pixel, cover the image with about 100.
_LEAVES_PER_PIXEL = 256


@register("generator", "dead_leaves")
class DeadLeavesStream(Stream):
    """Endless stream of dead leaves (Matheron, 1968; Lee, Mumford & Huang, 2001): overlapping shapes of one color each.

    - size: pixels per side. seed: another seed gives another stream.
    - shapes: "circle", "square", "oriented" (squares at any angle), "rectangle", "triangle", "quad" (corners anywhere on the
      leaf's circle), or "mixed" (any of these for each leaf).
    - radius: least and greatest radius of a leaf's circle, as a part of the image's side; never less than half a pixel.
    - exponent: σ of p(r) ∝ r^-σ; 3 gives the statistics of natural images.
    - color: RGB, each uniform; else grays. antialias: 4 × 4 samples per pixel, else 1.
    - threads: render slices of a batch in parallel.

    Samples have neither labels nor masks; they have the same bytes whatever the rest of the batch, the threads, the process or
    the machine. Raises ValueError for arguments out of range.
    """

    name = "dead_leaves"
    kernels = (render_slice,)

    def __init__(
        self,
        *,
        size: int = 224,
        seed: int = 0,
        shapes: Shapes = "mixed",
        radius: tuple[float, float] = (0.03, 1.0),
        exponent: float = 3.0,
        color: bool = True,
        antialias: bool = True,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        self.shapes = checked_choice("shapes", shapes, SHAPES)
        self.radius = checked_span("radius", radius, 0.001, 4.0)
        self.exponent = checked_number("exponent", exponent, 0.0, 10.0)
        self.color, self.antialias = checked_flags(color=color, antialias=antialias)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        least = max(self.radius[0], 0.5 / self.size)
        render_slice(
            self.stream_key,
            indices,
            SHAPES.index(self.shapes),
            least,
            max(self.radius[1], least),
            self.exponent,
            _LEAVES_PER_PIXEL * self.size**2,
            self.color,
            self.antialias,
            batch.images,
        )
