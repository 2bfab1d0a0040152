"""Texture programs as text."""

import numpy as np
from numpy.typing import NDArray

from ..palette import BANDS, COLORS, COSINES, KIND, RELIEF, SECOND, SECOND_PALETTE, SHADE, SMOOTH
from . import ops as op
from .ops import INSTRUCTIONS, Parameter

_PALETTES = {SMOOTH: "gradient of {} colors", BANDS: "{} flat colors", COSINES: "cosine palette"}
_SECONDS = {SHADE: ", shaded by ", SECOND_PALETTE: ", second palette by "}


def _argument(parameter: Parameter, value: float) -> str:
    if parameter.words:
        return parameter.words[int(value)]
    number = f"{int(value)}" if parameter.scale == "whole" else f"{value:.3g}"
    return f"{parameter.name} {number}"


def expression(codes: NDArray[np.int32], parameters: NDArray[np.float32]) -> str:
    """One expression, bends and functions outside of what they apply to: `tile(bricks, count 2, rings(frequency 3))`.

    Parameters that every instance draws independently, such as phases, are left out.
    """
    values: list[str] = []
    bends: list[str] = []
    for code, row in zip(codes, parameters, strict=True):
        instruction = INSTRUCTIONS[code]
        if code == op.LEAVE:
            values.append(f"{bends.pop()}{values.pop()})")
            continue
        listed = zip(instruction.parameters, row, strict=False)
        inside = [_argument(parameter, value) for parameter, value in listed if parameter.change != "redraw"]
        inside += [values.pop() for _ in range(instruction.arity)][::-1]
        if instruction.bends:
            bends.append(f"{instruction.name}({', '.join(inside)}, ")
        else:
            values.append(f"{instruction.name}({', '.join(inside)})" if inside else instruction.name)
    return values.pop()


def program_text(
    codes: NDArray[np.int32], parameters: NDArray[np.float32], lengths: NDArray[np.int64], style: NDArray[np.float64]
) -> str:
    """The program of a class: its palette, its shading, and its expressions."""
    first, whole = int(lengths[0]), int(lengths[1])
    text = _PALETTES[int(style[KIND])].format(int(style[COLORS])) + ": " + expression(codes[:first], parameters[:first])
    if int(style[SECOND]) in _SECONDS:
        text += _SECONDS[int(style[SECOND])] + expression(codes[first:whole], parameters[first:whole])
    return text + (", in relief" if style[RELIEF] > 0 else "")
