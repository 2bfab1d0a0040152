"""Concentric contours in classes: radial contours (RCDB, CVPR 2022) and sinusoidal ones (VisualAtom, CVPR 2023)."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..options import checked_choice, checked_flags, checked_integer, checked_span
from ..stream import Stream
from .kernel import render_slice
from .raster import MASKS, Mask
from .sampler import KINDS, Kind


@register("generator", "contours")
class ContoursStream(Stream):
    """Endless stream of contours: sample `index` is instance index // classes of class index % classes.

    - size: pixels per side. seed: another seed gives another stream. classes: number of classes; the label is the class.
    - kind: "radial", gray polygons on white after RCDB, or "atom", gray waves on black after VisualAtom.
    - lines: fewest and most contours of a class. perlin: least and greatest Perlin coefficient of a class, in 512ths of the
      image: sets the distance between contours and their roughness.
    - mask: what `masks` of a batch holds: "lines"; "ring", lines and the area between the first and the last contour;
      "filled", lines and the area within the last contour (M1, M2 and M3 of SegRCDB, ICCV 2023).
    - color: a random color for each line, else a gray. threads: render slices of a batch in parallel.

    A class has a number of vertices and of lines, a Perlin coefficient and a growth from line to line; an atom also a radius,
    an oval and two orders. An instance has its own noise, place and grays; a radial one its own radius and oval, too.
    A sample has the same bytes whatever the rest of the batch, the threads, the process or the machine.
    Raises ValueError for arguments out of range.
    """

    name = "contours"
    kernels = (render_slice,)

    def __init__(
        self,
        *,
        size: int = 224,
        seed: int = 0,
        classes: int = 1000,
        kind: Kind = "radial",
        lines: tuple[int, int] = (1, 200),
        perlin: tuple[float, float] = (0.0, 4.0),
        mask: Mask = "lines",
        color: bool = False,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        self.kind = checked_choice("kind", kind, KINDS)
        self.lines = checked_span("lines", lines, 1, 1000, whole=True)
        self.perlin = checked_span("perlin", perlin, 0.0, 32.0)
        self.mask = checked_choice("mask", mask, MASKS)
        (self.color,) = checked_flags(color=color)

    def _empty(self, indices: NDArray[np.int64]) -> ImageBatch:
        masks = np.empty((indices.size, self.size, self.size), np.uint8)
        return replace(super()._empty(indices), masks=masks)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        render_slice(
            self.stream_key,
            indices,
            self.num_classes,
            KINDS.index(self.kind),
            *self.lines,
            *self.perlin,
            MASKS.index(self.mask),
            self.color,
            batch.images,
            batch.masks,
        )
