"""Classes that are small perturbations of one fractal: Nakamura et al., "Scaling Backwards", ECCV 2024 (1p-frac)."""

from typing import Literal, get_args

import numpy as np

from wildfern.registry import register

from ..counter_rng import fold
from ..options import checked_choice, checked_integer, checked_number
from .fractaldb import FoundStream
from .ifs_sampler import MAX_MAPS
from .parameter_systems import AROUND_ONE, BY_SINGULAR_VALUES, Origin, find_systems
from .raster import Render

Perturbation = Literal["additive", "multiplicative"]
PERTURBATIONS: tuple[str, ...] = get_args(Perturbation)
_BASE_KEYS = 3


@register("generator", "one_fractal")
class OneFractalStream(FoundStream):
    """Classes that are small perturbations of one fractal: sample `index` shows class index % classes.

    The fractal is a system of `maps` maps with σ-factor within .1 of `sigma_factor`; `seed` decides which. A class changes
    all its parameters: p + delta U(-1/2, 1/2) ("additive", as the paper has it) or p U(1 - delta, 1 + delta)
    ("multiplicative", as its program does), drawn until 100 000 points light `filling_rate` of 512 × 512 pixels. Instances of
    a class differ by their points and 3 × 3 patches, and by the options that are on.

    - size, points, seed, classes, render, color, background, placement, blur, threads: as in `IFSStream`; patches
      without `color` are the published gray, 127 on black.
    - maps: 2 to 8. sigma_factor: 0.5 to 3 maps. delta: 0 to 1. filling_rate: 0 to 0.3.

    Raises ValueError for arguments out of range.
    """

    name = "one_fractal"

    def __init__(
        self,
        *,
        size: int = 224,
        points: int = 100_000,
        seed: int = 0,
        classes: int = 1000,
        maps: int = 2,
        sigma_factor: float = 3.5,
        delta: float = 0.1,
        perturbation: Perturbation = "additive",
        filling_rate: float = 0.05,
        render: Render = "patch",
        color: bool = False,
        background: bool = False,
        placement: bool = False,
        blur: bool = False,
        threads: int = 1,
    ):
        self.maps = checked_integer("maps", maps, 2, MAX_MAPS)
        super().__init__(
            size,
            seed,
            classes,
            filling_rate,
            0.0,
            threads,
            points=points,
            maps=(self.maps, self.maps),
            render=render,
            color=color,
            background=background,
            placement=placement,
            blur=blur,
        )
        self.sigma_factor = checked_number("sigma_factor", sigma_factor, 0.5, 3.0 * self.maps)
        self.delta = checked_number("delta", delta, 0.0, 1.0)
        self.perturbation = checked_choice("perturbation", perturbation, PERTURBATIONS)
        self._base: np.ndarray | None = None

    def base(self) -> np.ndarray:
        """The one system, float64[maps, 2, 3] as [A | b]."""
        if self._base is None:
            origin = Origin(BY_SINGULAR_VALUES, self.maps, self.maps, self.sigma_factor, True, _no_base())
            systems, _ = find_systems(fold(self.stream_key, _BASE_KEYS), origin, self.filling_rate)
            self._base = systems[0, : self.maps]
        return self._base

    def origin(self) -> Origin:
        base = _no_base()
        base[: self.maps] = self.base()
        return Origin(AROUND_ONE, self.maps, self.maps, self.delta, self.perturbation == "additive", base)


def _no_base() -> np.ndarray:
    return np.zeros((MAX_MAPS, 2, 3))
