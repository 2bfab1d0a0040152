"""Branching curvilinear structures with exact masks: the stream after FreeCOS (Shi et al., ICCV 2023)."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wildfern.registry import register

from ..batch import ImageBatch
from ..diamond_square import levels_for
from ..options import checked_choice, checked_flags, checked_integer, checked_number, checked_span
from ..stream import Stream
from .grammar import MAX_ITERATIONS, RULE_SETS, growth
from .kernel import BACKGROUNDS, COLORS, Background, Color, render_slice
from .presets import NUMBERS, PRESETS, PresetName, Span

MOST_SEGMENTS = 100_000
#: Length in pixels of the straight pieces of a branch, and their minimum and maximum number.
PIECE, FEWEST_PIECES, MOST_PIECES = 6.0, 2, 16
#: Samples of test splits have indices from here on, so that they are never easier for a curriculum.
LONGEST_CURRICULUM = 2**40


@register("generator", "lsystem")
class LSystemStream(Stream):
    """Endless stream of trees grown by stochastic L-systems, such as blood vessels or cracks, with their exact masks.

    Lengths and places are in sides of the image, angles in degrees, spans (least, most); None is the preset's value.

    - size: pixels per side. seed: another seed gives another stream. preset: "vessels" in an X-ray, "retina" or "cracks".
    - iterations: fewest and most rewritings of a tree's axiom. trees: fewest and most trees.
    - rule_weights: how often an F is rewritten by the first, second and third rule of the set. second_set: share of trees
      with the second set of rules. bracketed: share of trees with the axiom `[+F-F][-F]`, the others have F.
    - width: of a tree before its first turn, never below 1/400 of a side nor 1.5 pixels. length: of its branches.
      ratio: of both factors λ of a tree, by which widths and lengths shrink. turn: at every + and -.
    - start_x, start_y, start_angle: where a tree starts, from the upper left corner, and its first heading, counterclockwise
      from the right; half of the trees are mirrored. rotation: turns all trees of an image about its center.
    - bend: change of heading along a branch, to either side. jag: by how much at most a piece leaves its branch's arc.
      pieces: straight pieces of a branch; None is one for every 6 pixels, 2 to 16. smooth: a branch leaves the one before in
      its direction, rather than with a kink. taper: widths change along a branch, rather than at its start.
    - color: the preset's colors, ± `variation` gray levels a branch, "random" ones, or one random "texture" for the branches of
      an image. background: diamond-square "clouds", "plain", "white", or a random "texture". contrast: between background and
      branch, at 1 nothing of the background shines through.
      inverted: bright branches on a dark ground: the preset's colors subtracted from 255.
      softness: the part of it lost towards a branch's edge. blur: 3 × 3 Gaussian, σ ~ U(.5, 1). noise: ± gray levels a
      pixel.
    - curriculum: samples over which the lower ends of the spans of width and contrast fall from the middle of the span to the
      given ones, linearly with the index; 0: none. threads: render slices of a batch in parallel.

    Batches hold images, masks (1 where a pixel's center is in a branch), widths (of that branch, the widest of several) and
    centerlines (8-connected, inside the mask), and no labels.
    Raises ValueError for arguments out of range.
    """

    name = "lsystem"
    kernels = (render_slice,)

    def __init__(
        self,
        *,
        size: int = 224,
        seed: int = 0,
        preset: PresetName = "vessels",
        iterations: tuple[int, int] = (1, 2),
        trees: tuple[int, int] | None = None,
        rule_weights: tuple[float, float, float] = (0.5, 0.3, 0.2),
        second_set: float = 0.5,
        bracketed: float = 0.5,
        width: tuple[float, float] | None = None,
        length: tuple[float, float] | None = None,
        turn: tuple[float, float] | None = None,
        ratio: tuple[float, float] = (0.7, 1.0),
        start_x: tuple[float, float] = (0.0625, 0.3125),
        start_y: tuple[float, float] = (0.625, 0.625),
        start_angle: tuple[float, float] | None = None,
        rotation: tuple[float, float] = (0.0, 360.0),
        bend: tuple[float, float] | None = None,
        jag: float | None = None,
        pieces: int | None = None,
        smooth: bool = True,
        taper: bool = True,
        color: Color = "preset",
        background: Background = "clouds",
        inverted: bool = False,
        contrast: tuple[float, float] | None = None,
        softness: float | None = None,
        variation: float = 3.0,
        blur: bool = True,
        noise: float | None = None,
        curriculum: int = 0,
        threads: int = 1,
    ):
        super().__init__(size, seed, threads)
        numbers = NUMBERS[checked_choice("preset", preset, PRESETS)]
        self.preset = preset
        self.iterations = checked_span("iterations", iterations, 1, MAX_ITERATIONS, whole=True)
        self.trees = checked_span("trees", numbers.trees if trees is None else trees, 1, 64, whole=True)
        self.rule_weights = _checked_weights(rule_weights)
        self.second_set = checked_number("second_set", second_set, 0.0, 1.0)
        self.bracketed = checked_number("bracketed", bracketed, 0.0, 1.0)

        def span(name: str, value: Span | None, lowest: float, highest: float) -> Span:
            return checked_span(name, getattr(numbers, name) if value is None else value, lowest, highest)

        self.width = span("width", width, 0.0, 0.1)
        self.length = span("length", length, 0.02, 1.0)
        self.turn = span("turn", turn, 0.0, 180.0)
        self.bend = span("bend", bend, 0.0, 180.0)
        self.jag = checked_number("jag", numbers.jag if jag is None else jag, 0.0, 90.0)
        usual = min(max(round(0.5 * sum(self.length) * self.size / PIECE), FEWEST_PIECES), MOST_PIECES)
        self.pieces = checked_integer("pieces", usual if pieces is None else pieces, 1, 64)
        self.ratio = span("ratio", ratio, 0.3, 1.0)
        self.start_x, self.start_y = span("start_x", start_x, 0.0, 1.0), span("start_y", start_y, 0.0, 1.0)
        self.start_angle = span("start_angle", start_angle, -360.0, 360.0)
        self.rotation = span("rotation", rotation, -360.0, 360.0)
        self.color = checked_choice("color", color, COLORS)
        self.background = checked_choice("background", background, BACKGROUNDS)
        self.contrast = span("contrast", contrast, 0.2, 1.0)
        self.softness = checked_number("softness", numbers.softness if softness is None else softness, 0.0, 0.8)
        self.variation = checked_number("variation", variation, 0.0, 40.0)
        self.noise = checked_number("noise", numbers.noise if noise is None else noise, 0.0, 64.0)
        self.curriculum = checked_integer("curriculum", curriculum, 0, LONGEST_CURRICULUM)
        self.smooth, self.taper, self.blur = checked_flags(smooth=smooth, taper=taper, blur=blur)
        (self.inverted,) = checked_flags(inverted=inverted)
        if self.inverted and (self.background == "white" or "texture" in (self.background, self.color)):
            raise ValueError(
                "inverted is for the colors of a preset on clouds or plain: textures have both kinds already"
            )
        self._most = self._bounds()
        places = self.start_x, self.start_y, self.start_angle, self.rotation
        sizes = self.width, self.length, self.turn, self.bend, self.ratio
        #: Rows as named in `lsystem_layout`.
        self._spans = np.array([self.trees, self.iterations, *sizes, *places, self.contrast], np.float64)
        first, second, third = self.rule_weights
        total = first + second + third
        # A weight of 0 is never drawn: uniform numbers are below 1, and the sums are exact where they matter.
        self._odds = np.array(
            [
                self.bracketed,
                self.second_set,
                first / total if second or third else 1.0,
                (first + second) / total if third else 1.0,
            ]
        )
        colors = np.array([numbers.branch, numbers.shade, numbers.light], np.float64)
        self._colors = 255.0 - colors if self.inverted else colors

    def segments(self, index: int) -> NDArray[np.float64]:
        """The strokes of a sample, in the order of drawing: float64[M, 6] of x0, y0, x1, y1, width0, width1.

        In pixels, x to the right and y downward from the corner of the image; a pixel's center is at + ½. Some may lie
        outside the image. A point belongs to a stroke if it is no further from the segment than half the width there,
        which runs from width0 to width1.
        """
        index = checked_integer("index", index, -(2**63), 2**63 - 1)
        indices = np.array([index], np.int64)
        return self._draw(indices, self._empty(indices))

    def _empty(self, indices: NDArray[np.int64]) -> ImageBatch:
        # One allocation for all three: the system uses larger pages for larger allocations.
        memory = np.zeros((6, indices.size, self.size, self.size), np.uint8)
        widths = memory[:4].reshape(-1).view(np.float32).reshape(memory.shape[1:])
        masks, centerlines = memory[4], memory[5]
        return replace(super()._empty(indices), masks=masks, widths=widths, centerlines=centerlines)

    def _render(self, indices: NDArray[np.int64], batch: ImageBatch) -> None:
        self._draw(indices, batch)

    def _draw(self, indices: NDArray[np.int64], batch: ImageBatch) -> NDArray[np.float64]:
        """Render, and return the segments of the last sample."""
        counts = np.empty(indices.size, np.int64)
        segments = render_slice(
            self.stream_key,
            indices,
            self._spans,
            self._odds,
            *self._most,
            self.taper,
            self.smooth,
            self.pieces,
            self.jag,
            COLORS.index(self.color),
            self.variation,
            self._colors,
            BACKGROUNDS.index(self.background),
            self.softness,
            self.blur,
            self.noise,
            self.curriculum,
            levels_for(self.size),
            batch.images.reshape(indices.size, self.size, 3 * self.size),
            batch.masks,
            batch.widths,
            batch.centerlines,
            counts,
        )
        return segments[: counts[-1]] if indices.size else segments[:0]

    def _bounds(self) -> tuple[int, int]:
        """The most segments of an image and symbols of a sentence that the arguments allow; ValueError if too many."""
        axioms = {0} if self.bracketed == 0.0 else {1} if self.bracketed == 1.0 else {0, 1}
        sets = {0} if self.second_set == 0.0 else {1} if self.second_set == 1.0 else {0, 1}
        rules = {RULE_SETS[s][i] for s in sets for i in range(3) if self.rule_weights[i] > 0.0}
        segments, symbols = growth(self.iterations[1], axioms, rules)
        segments *= self.trees[1] * self.pieces
        if segments > MOST_SEGMENTS:
            raise ValueError(
                f"{self.trees[1]} trees of {self.pieces} pieces a branch after {self.iterations[1]} iterations can have "
                f"{segments} pieces, and {MOST_SEGMENTS} is the most of an image: choose fewer trees, iterations or pieces"
            )
        return segments, symbols


def _checked_weights(value: tuple[float, float, float]) -> tuple[float, float, float]:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise ValueError(f"rule_weights must be three numbers, such as (0.5, 0.3, 0.2), not {value!r}")
    weights = tuple(checked_number(f"rule_weights[{i}]", weight, 0.0, 1e6) for i, weight in enumerate(value))
    if not any(weights):
        raise ValueError("rule_weights must not all be 0")
    return weights
