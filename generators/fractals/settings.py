"""Checked settings shared by all samples of a stream of fractals, in the form that kernels take."""

from typing import NamedTuple

from ..diamond_square import levels_for
from ..options import checked_choice, checked_flags, checked_integer, checked_span
from .chaos_game import rows_for
from .ifs_sampler import MAX_MAPS, SAMPLINGS, Sampling
from .jitter import JITTERS, Jitter
from .raster import RENDERS, Render


class Settings(NamedTuple):
    """jitter and render are positions in JITTERS and RENDERS; rows are those of a track, levels those of a background."""

    fewest: int
    most: int
    even: bool
    jitter: int
    points: int
    rows: int
    render: int
    color: bool
    background: bool
    move: bool
    blur: bool
    size: int
    levels: int


def checked_settings(
    size: int,
    *,
    points: int,
    maps: tuple[int, int],
    render: Render,
    color: bool,
    background: bool,
    blur: bool,
    placement: bool = True,
    sampling: Sampling = "sequential",
    jitter: Jitter = "none",
) -> Settings:
    """The settings of a stream with these arguments (see `IFSStream`); raises ValueError for values out of range."""
    points = checked_integer("points", points, 1, 10_000_000)
    fewest, most = checked_span("maps", maps, 2, MAX_MAPS, whole=True)
    color, background, placement, blur = checked_flags(
        color=color, background=background, placement=placement, blur=blur
    )
    return Settings(
        fewest,
        most,
        checked_choice("sampling", sampling, SAMPLINGS) == "uniform",
        JITTERS.index(checked_choice("jitter", jitter, JITTERS)),
        points,
        rows_for(points),
        RENDERS.index(checked_choice("render", render, RENDERS)),
        color,
        background,
        placement,
        blur,
        size,
        levels_for(size),
    )
