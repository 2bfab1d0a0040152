"""Presets for the three kinds of images in FreeCOS (Shi et al., ICCV 2023), with colors for each.

The published numbers are pixels of a canvas of 800 a side, which was scaled to 512; here they are shares of the image's side.
Trees, bends, jags, colors, contrasts, softness and noise are additions: the published images show one tree of straight branches
in random colors on white.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Span = tuple[float, float]
RGB = tuple[int, int, int]

PresetName = Literal["vessels", "retina", "cracks"]
PRESETS: tuple[str, ...] = get_args(PresetName)
CANVAS = 800.0
#: A turtle's pen is never thinner: 2 pixels of the published canvas.
THINNEST = 2.0 / CANVAS


def _of_canvas(least: float, most: float) -> Span:
    return least / CANVAS, most / CANVAS


@dataclass(frozen=True)
class Preset:
    """Defaults of one kind of image. Spans are (least, most), uniform between; angles are degrees.

    - trees: axioms in an image. width, length: of an axiom's branch, in sides of the image.
    - turn: a turn at + or -. start_angle: first heading, counterclockwise from the right. bend: change of heading within a
      branch. jag: by how much at most a piece of a branch leaves its arc.
    - contrast: how far the middle of a branch is from the background's color to the branch's. softness: the part of this that
      is lost towards the edge. noise: ± gray levels.
    - branch: color of branches. shade, light: the ends of the background's ramp.
    """

    trees: tuple[int, int]
    width: Span
    length: Span
    turn: Span
    start_angle: Span
    bend: Span
    jag: float
    contrast: Span
    softness: float
    noise: float
    branch: RGB
    shade: RGB
    light: RGB


NUMBERS: dict[str, Preset] = {
    "vessels": Preset(  # XCAD: dark, soft vessels in gray X-ray angiograms
        trees=(1, 3),
        width=_of_canvas(2, 12),
        length=_of_canvas(90, 150),
        turn=(1.0, 4.0),
        start_angle=(0.0, 0.0),
        bend=(0.0, 50.0),
        jag=3.0,
        contrast=(0.5, 0.9),
        softness=0.5,
        noise=5.0,
        branch=(40, 40, 40),
        shade=(110, 110, 110),
        light=(200, 200, 200),
    ),
    "retina": Preset(  # DRIVE: dark red vessels on an orange fundus
        trees=(2, 4),
        width=_of_canvas(2, 6),
        length=_of_canvas(90, 150),
        turn=(10.0, 39.0),
        start_angle=(-80.0, 20.0),
        bend=(0.0, 30.0),
        jag=3.0,
        contrast=(0.5, 0.9),
        softness=0.3,
        noise=5.0,
        branch=(120, 35, 25),
        shade=(170, 75, 35),
        light=(235, 145, 85),
    ),
    "cracks": Preset(  # CrackTree: dark lines in concrete
        trees=(1, 2),
        width=_of_canvas(2, 8),
        length=_of_canvas(120, 200),
        turn=(10.0, 39.0),
        start_angle=(-80.0, 20.0),
        bend=(0.0, 15.0),
        jag=35.0,
        contrast=(0.5, 0.95),
        softness=0.0,
        noise=12.0,
        branch=(40, 38, 36),
        shade=(120, 119, 115),
        light=(190, 188, 182),
    ),
}
