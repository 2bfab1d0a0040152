"""The instructions of texture programs, and the ranges of their parameters.

Instructions work on two stacks. *Points* hold plane coordinates, and a number of the tile that a pixel lies in; an
instruction that bends the plane pushes new points, and `leave` pops them. *Values* lie in [0, 1]; patterns push one, read
from the points on top; everything else takes values and pushes one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: Parameters of an instruction, at most.
PARAMETERS = 5
#: Instructions of a program, at most, not counting patterns and `leave`.
MOST_INSTRUCTIONS = 16

Scale = Literal["even", "log", "whole"]
#: What an instance of a class changes: nothing, a factor of up to exp(±amount), an offset up to ±amount, everything.
Change = Literal["keep", "factor", "offset", "redraw"]
SCALES: tuple[Scale, ...] = ("even", "log", "whole")
CHANGES: tuple[Change, ...] = ("keep", "factor", "offset", "redraw")


@dataclass(frozen=True)
class Parameter:
    """A number of an instruction: drawn between `low` and `high` for a class, changed as `change` says by an instance.

    A parameter with `words` is a choice; its value is the position of a word.
    """

    name: str
    low: float
    high: float
    scale: Scale = "even"
    change: Change = "keep"
    amount: float = 0.0
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instruction:
    """An instruction that takes `arity` values; `bends` if it pushes points, `reads` if it makes a value of points."""

    name: str
    arity: int = 0
    parameters: tuple[Parameter, ...] = ()
    bends: bool = False
    reads: bool = False


def _choice(name: str, *words: str) -> Parameter:
    return Parameter(name, 0, len(words) - 1, "whole", words=words)


def _phase() -> Parameter:
    return Parameter("phase", 0.0, 1.0, change="redraw")


def _frequency(low: float, high: float) -> Parameter:
    return Parameter("frequency", low, high, "log", "factor", 0.12)


def _count(low: float, high: float) -> Parameter:
    return Parameter("count", low, high, "log", "factor", 0.12)


_SHARPNESS = Parameter("sharpness", 1.0, 8.0, "log", "factor", 0.2)

INSTRUCTIONS = (
    # Bend the plane.
    Instruction(
        "turn",
        bends=True,
        parameters=(
            Parameter("angle", 0.0, 1.0, change="offset", amount=0.02),
            Parameter("zoom", 0.7, 1.4, "log", "factor", 0.1),
            Parameter("stretch", 1.0, 4.0, "log", "factor", 0.1),
            Parameter("x", -1.0, 1.0, change="offset", amount=0.2),
            Parameter("y", -1.0, 1.0, change="offset", amount=0.2),
        ),
    ),
    Instruction(
        "tile",
        bends=True,
        parameters=(
            _choice("layout", "squares", "bricks", "mirrors", "hexagons"),
            _count(0.9, 3.0),
            _choice("spin", "none", "quarters", "any"),
        ),
    ),
    Instruction(
        "scatter",
        bends=True,
        parameters=(
            _count(1.0, 3.0),
            Parameter("disorder", 0.3, 0.9, change="factor", amount=0.1),
            _choice("spin", "none", "any"),
        ),
    ),
    Instruction(
        "kaleidoscope",
        bends=True,
        parameters=(
            Parameter("sectors", 1, 8, "whole"),
            Parameter("angle", 0.0, 1.0, change="offset", amount=0.03),
        ),
    ),
    Instruction(
        "polar",
        bends=True,
        parameters=(
            Parameter("sectors", 1, 4, "whole"),
            Parameter("spread", 0.7, 2.0, "log", "factor", 0.1),
        ),
    ),
    Instruction(
        "swirl",
        bends=True,
        parameters=(
            Parameter("turns", -1.0, 1.0, change="factor", amount=0.2),
            Parameter("radius", 0.4, 1.2, "log", "factor", 0.1),
        ),
    ),
    Instruction("lens", bends=True, parameters=(Parameter("radius", 0.5, 1.2, "log", "factor", 0.15),)),
    Instruction(
        "ripple",
        bends=True,
        parameters=(
            Parameter("amount", 0.05, 0.25, "log", "factor", 0.2),
            _frequency(0.5, 2.0),
            _phase(),
        ),
    ),
    Instruction("warp", arity=2, bends=True, parameters=(Parameter("amount", 0.15, 0.8, "log", "factor", 0.2),)),
    Instruction("leave"),
    # Patterns.
    Instruction("stripes", reads=True, parameters=(_frequency(0.8, 4.0), _SHARPNESS, _phase())),
    Instruction("rings", reads=True, parameters=(_frequency(0.8, 4.0), _SHARPNESS, _phase())),
    Instruction(
        "spokes",
        reads=True,
        parameters=(
            Parameter("arms", 1, 9, "whole"),
            Parameter("twist", -3.0, 3.0, change="factor", amount=0.2),
            _SHARPNESS,
            _phase(),
        ),
    ),
    Instruction(
        "shape",
        reads=True,
        parameters=(
            _choice("outline", "disc", "square", "diamond"),
            Parameter("radius", 0.25, 0.5, change="factor", amount=0.1),
            Parameter("softness", 0.05, 1.0, "log", "factor", 0.2),
            Parameter("petals", 0, 8, "whole"),
        ),
    ),
    Instruction("tone", reads=True),
    Instruction("blocks", reads=True, parameters=(_frequency(1.0, 4.0), _choice("edges", "hard", "soft"))),
    Instruction("noise", reads=True, parameters=(_frequency(0.8, 3.5),)),
    Instruction(
        "fractal",
        reads=True,
        parameters=(
            _frequency(0.6, 2.0),
            Parameter("octaves", 2, 5, "whole"),
            Parameter("gain", 0.4, 0.7, change="factor", amount=0.05),
            _choice("folds", "clouds", "billows", "ridges"),
        ),
    ),
    Instruction(
        "cells",
        reads=True,
        parameters=(
            _frequency(1.0, 3.5),
            Parameter("disorder", 0.4, 1.0, change="factor", amount=0.1),
            _choice("measure", "distance", "walls", "tones"),
        ),
    ),
    # Functions of one value.
    Instruction("wave", 1, (Parameter("cycles", 0.7, 3.0, "log", "factor", 0.1), _phase())),
    Instruction("fold", 1, (Parameter("folds", 1.0, 3.0, change="factor", amount=0.1),)),
    Instruction("saw", 1, (Parameter("teeth", 1.5, 4.0, change="factor", amount=0.1),)),
    Instruction(
        "step",
        1,
        (
            Parameter("at", 0.35, 0.65, change="offset", amount=0.04),
            Parameter("width", 0.03, 0.4, "log", "factor", 0.2),
        ),
    ),
    Instruction("bias", 1, (Parameter("toward", 0.15, 0.85, change="offset", amount=0.04),)),
    Instruction("terraces", 1, (Parameter("levels", 2, 5, "whole"),)),
    # Functions of several values.
    Instruction("blend", 2, (Parameter("share", 0.3, 0.7, change="offset", amount=0.05),)),
    Instruction("multiply", 2),
    Instruction("screen", 2),
    Instruction("darker", 2),
    Instruction("lighter", 2),
    Instruction("difference", 2),
    Instruction("mix", 3),
)

# fmt: off
(
    TURN, TILE, SCATTER, KALEIDOSCOPE, POLAR, SWIRL, LENS, RIPPLE, WARP, LEAVE,
    STRIPES, RINGS, SPOKES, SHAPE, TONE, BLOCKS, NOISE, FRACTAL, CELLS,
    WAVE, FOLD, SAW, STEP, BIAS, TERRACES,
    BLEND, MULTIPLY, SCREEN, DARKER, LIGHTER, DIFFERENCE, MIX,
) = range(len(INSTRUCTIONS))
# fmt: on
#: By instruction, and by parameter where there are two axes.
ARITY = np.array([instruction.arity for instruction in INSTRUCTIONS], np.int64)


def _table(column: Callable[[Parameter], float]) -> np.ndarray:
    rows = [[column(p) for p in i.parameters] + [0.0] * (PARAMETERS - len(i.parameters)) for i in INSTRUCTIONS]
    return np.array(rows)


LOW, HIGH = _table(lambda p: p.low), _table(lambda p: p.high)
SCALE = _table(lambda p: SCALES.index(p.scale)).astype(np.int64)
CHANGE = _table(lambda p: CHANGES.index(p.change)).astype(np.int64)
AMOUNT = _table(lambda p: p.amount)
COUNT = np.array([len(instruction.parameters) for instruction in INSTRUCTIONS], np.int64)
