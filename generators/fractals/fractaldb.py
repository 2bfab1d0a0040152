"""Fractal classes and instances as FractalDB draws them (Kataoka et al., "Pre-training without Natural Images", ACCV 2020)."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..counter_rng import fold
from ..options import checked_integer, checked_number
from ..stream import Stream
from .ifs_kernel import render_fractals
from .ifs_sampler import CLASS_KEYS, MAX_MAPS
from .parameter_systems import BY_PARAMETERS, Origin, find_systems, search
from .raster import Render
from .settings import checked_settings


class FoundStream(Stream):
    """A stream of fractals whose classes are found by search, at the first sample of each, and then cached."""

    kernels = (search, render_fractals)

    def __init__(self, size, seed, classes, filling_rate, weight_step, threads, **settings) -> None:
        super().__init__(size, seed, threads)
        self.num_classes = checked_integer("classes", classes, 1, 2**62)
        self.filling_rate = checked_number("filling_rate", filling_rate, 0.0, 0.3)
        self.weight_step = checked_number("weight_step", weight_step, 0.0, 0.5)
        self._settings = checked_settings(self.size, **settings)
        self._found: dict[int, tuple[NDArray[np.float64], int]] = {}

    @abstractmethod
    def origin(self) -> Origin:
        """How this stream draws its systems."""

    def systems(self, classes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The systems of some classes: float64[N, 8, 2, 3] as [A | b], of which the first `counts` (int64[N]) maps are used."""
        classes = np.asarray(classes, np.int64)
        missing = np.array([label for label in np.unique(classes) if int(label) not in self._found], np.int64)
        if missing.size:
            keys = fold(fold(self.stream_key, int(CLASS_KEYS)), missing)
            systems, counts = find_systems(keys, self.origin(), self.filling_rate)
            # Two threads may search for the same class: they find the same system.
            self._found.update(zip(missing.tolist(), zip(systems, counts.tolist(), strict=True), strict=True))
        found = [self._found[label] for label in classes.tolist()]
        systems = np.array([system for system, _ in found]).reshape(-1, MAX_MAPS, 2, 3)
        return systems, np.array([count for _, count in found], np.int64)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        images = batch.images.reshape(indices.size, self.size, 3 * self.size)
        systems, counts = self.systems(indices % self.num_classes)
        step = self.weight_step
        render_fractals(self.stream_key, indices, self.num_classes, self._settings, systems, counts, step, images)


@register("generator", "fractaldb")
class FractalDBStream(FoundStream):
    """FractalDB rendered during training: sample `index` is instance index // classes of class index % classes.

    A class is a system of 2 to 7 maps with all parameters ~ U(-1, 1), drawn until 100 000 points of it light `filling_rate` of
    512 × 512 pixels. Its first 100 instances are the published 25 rows of weights (none, or one of the six parameters of all
    maps multiplied by 1 ± step or 1 ± 2 step) in 4 flips each; every image has its own points and its own 3 × 3 patch, so
    the next hundreds are new draws, not repetitions. A weight that makes a system diverge is moved toward 1.

    - size, points, seed, classes, maps, render, color, background, placement, blur, threads: as in `IFSStream`; patches
      without `color` are the published gray, 127 on black. filling_rate: 0 to 0.3. weight_step: 0 (no weights, no flips) to 0.5.

    Raises ValueError for arguments out of range.
    """

    name = "fractaldb"

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 1000,
        maps: tuple[int, int] = (2, 7),
        filling_rate: float = 0.2,
        weight_step: float = 0.4,
        render: Render = "patch",
        color: bool = False,
        background: bool = False,
        placement: bool = False,
        blur: bool = False,
        threads: int = 1,
    ):
        super().__init__(
            size,
            seed,
            classes,
            filling_rate,
            weight_step,
            threads,
            points=points,
            maps=maps,
            render=render,
            color=color,
            background=background,
            placement=placement,
            blur=blur,
        )

    def origin(self) -> Origin:
        return Origin(BY_PARAMETERS, self._settings.fewest, self._settings.most, 0.0, True, np.zeros((MAX_MAPS, 2, 3)))
