"""The grammar that texture programs are drawn from: weights of the instructions, and their effect on frequencies.

Programs grow from the outside in, with a budget of instructions. Each bend of the plane and each function of a value
multiplies the frequencies inside it; pattern frequencies are drawn low enough that the result is roughly below FINEST.
"""

import numpy as np
from numba import njit

from ..elementary import drawn, exp, log
from . import ops as op
from .ops import ARITY, COUNT, HIGH, INSTRUCTIONS, LOW, MOST_INSTRUCTIONS, PARAMETERS, SCALE

#: Cycles per unit of the plane, at most, and what patterns need not fall below for that; an image of 64 shows two units.
FINEST, SLOWEST = 5.0, 0.35
#: Room for a program: each instruction brings at most three patterns or two patterns and a `leave`.
LONGEST = 4 * (MOST_INSTRUCTIONS + 4)

_WEIGHTS = {
    # weight on the plane, weight in a tile
    "turn": (0.8, 0.4),
    "tile": (2.8, 0.3),
    "scatter": (1.5, 0.2),
    "kaleidoscope": (0.9, 0.3),
    "polar": (0.4, 0.3),
    "swirl": (0.5, 0.3),
    "lens": (0.4, 0.0),
    "ripple": (1.0, 0.4),
    "warp": (2.0, 0.6),
    "stripes": (2.6, 2.0),
    "rings": (0.8, 2.0),
    "spokes": (0.5, 1.5),
    "shape": (0.0, 4.0),
    "tone": (0.0, 1.2),
    "blocks": (0.6, 0.1),
    "noise": (0.8, 0.3),
    "fractal": (2.2, 0.4),
    "cells": (2.2, 0.4),
    "wave": (1.0, 0.8),
    "fold": (0.6, 0.5),
    "saw": (0.4, 0.3),
    "step": (1.2, 1.0),
    "bias": (0.3, 0.2),
    "terraces": (0.5, 0.4),
    "blend": (0.8, 0.8),
    "multiply": (0.6, 0.8),
    "screen": (0.5, 0.6),
    "darker": (0.8, 1.0),
    "lighter": (0.8, 1.0),
    "difference": (1.0, 1.0),
    "mix": (1.6, 1.4),
}
WEIGHTS = np.array([_WEIGHTS.get(instruction.name, (0.0, 0.0)) for instruction in INSTRUCTIONS])
PATTERN = np.array([instruction.reads for instruction in INSTRUCTIONS])
BENDS = np.array([instruction.bends for instruction in INSTRUCTIONS])
#: Position of the frequency (or tile count) among the parameters of an instruction; -1: none.
_RATE = np.array(
    [next((k for k, p in enumerate(i.parameters) if p.name in ("frequency", "count")), -1) for i in INSTRUCTIONS]
)
#: What is left to do while a program grows, by place: the kind of task, the budget, whether in a tile, the instruction outside,
#: the product of speeds outside, an instruction and its parameters.
_KIND, _LEFT, _TILED, _OUTER, _LOAD, _CODE, _ROW = range(7)
TASK = _ROW + PARAMETERS
_EXPAND, _EXPAND_SMOOTH, _WRITE = range(3)
#: Patterns used for warping have lower frequencies than others.
_SMOOTH = np.float32(0.5)


@njit
def _next(program_key, cursor):
    cursor[0] += np.uint64(1)
    return drawn(program_key, cursor[0])


@njit
def _draw_parameters(program_key, cursor, code, load, row):
    """Draw the parameters of an instruction; rates stay below FINEST / load."""
    for k in range(PARAMETERS):
        row[k] = np.float32(0.0)
    for k in range(COUNT[code]):
        u, low, high = _next(program_key, cursor), LOW[code, k], HIGH[code, k]
        if k == _RATE[code]:
            high = max(min(high, FINEST / load), SLOWEST)
            low = min(low, high)
        if SCALE[code, k] == 0:
            row[k] = np.float32(low + (high - low) * u)
        elif SCALE[code, k] == 1:
            row[k] = np.float32(low * exp(u * log(high / low)))
        else:
            row[k] = np.float32(int(low + u * (high - low + 1.0)))


@njit
def _speed(code, p):
    """Approximate factor by which an instruction multiplies the frequencies inside it."""
    if code == op.TURN:
        return p[1] * np.sqrt(p[2])
    if code in (op.TILE, op.SCATTER):
        return p[1] if code == op.TILE else p[0]
    if code == op.POLAR:
        return max(1.2 * p[0], p[1])
    if code == op.SWIRL:
        return 1.0 + abs(p[0])
    if code == op.LENS:
        return 1.5
    if code == op.RIPPLE:
        return 1.0 + 4.0 * p[0] * p[1]
    if code == op.WARP:
        return 1.0 + p[0]
    if code in (op.WAVE, op.SAW):
        return max(1.0, 1.5 * p[0])
    if code == op.FOLD:
        return max(1.0, p[0])
    if code == op.TERRACES:
        return 1.3
    return 1.0


@njit
def _choose(program_key, cursor, tiled, budget, load, outer):
    """Draw an instruction allowed by budget and load, different from the enclosing one."""
    total = 0.0
    u = _next(program_key, cursor)
    for round in range(2):
        below = 0.0
        for code in range(ARITY.size):
            weight = WEIGHTS[code, tiled]
            allowed = PATTERN[code] if budget == 0 else not PATTERN[code]
            allowed = allowed and (ARITY[code] <= budget or PATTERN[code] or code == op.WARP) and code != outer
            if code in (op.TILE, op.SCATTER, op.SAW):
                allowed = allowed and load < 2.5
            if allowed:
                below += weight
                if round == 1 and u * total < below:
                    return code
        total = below
    return op.STRIPES


@njit
def draw_expression(program_key, cursor, budget, tasks, codes, parameters, length):
    """Append a random expression of `budget` instructions and their patterns to codes[length:] and parameters.

    Returns the new length. cursor (uint64[1]) counts draws of the key; tasks: float64[LONGEST, TASK] workspace.
    """
    # Tasks are a stack: what is pushed first is written last.
    waiting, row = 1, parameters[LONGEST - 1]
    tasks[0, _KIND], tasks[0, _LEFT], tasks[0, _TILED] = _EXPAND, budget, 0
    tasks[0, _OUTER], tasks[0, _LOAD] = -1, 1.0
    while waiting > 0:
        waiting -= 1
        task = tasks[waiting]
        if task[_KIND] == _WRITE:
            codes[length] = int(task[_CODE])
            for k in range(PARAMETERS):
                parameters[length, k] = np.float32(task[_ROW + k])
            length += 1
            continue
        tiled, left, load = task[_TILED], int(task[_LEFT]), task[_LOAD]
        smooth = task[_KIND] == _EXPAND_SMOOTH
        if smooth:
            u = _next(program_key, cursor)
            code = op.NOISE if u < 0.55 else (op.FRACTAL if u < 0.8 else op.STRIPES)
        else:
            code = _choose(program_key, cursor, int(tiled), left, load, int(task[_OUTER]))
        _draw_parameters(program_key, cursor, code, load, row)
        if smooth:
            row[0] *= _SMOOTH
            row[1] = np.float32(1.0 if code == op.STRIPES else 2.0)
        if PATTERN[code]:
            codes[length] = code
            for k in range(PARAMETERS):
                parameters[length, k] = row[k]
            length += 1
            continue
        inner = load * _speed(code, row)
        left -= 1
        bends = 1 if BENDS[code] else 0
        if bends:
            task[_KIND], task[_CODE] = _WRITE, op.LEAVE
            for k in range(PARAMETERS):
                task[_ROW + k] = 0.0
            task = tasks[waiting + 1]
            task[_KIND], task[_LEFT], task[_LOAD], task[_OUTER] = _EXPAND, left, inner, code
            task[_TILED] = 1.0 if code in (op.TILE, op.SCATTER) else tiled
        task = tasks[waiting + 2 * bends]
        task[_KIND], task[_CODE] = _WRITE, code
        for k in range(PARAMETERS):
            task[_ROW + k] = row[k]
        waiting += 2 * bends + 1
        for child in range(ARITY[code]):
            task, share = tasks[waiting], left
            if child < ARITY[code] - 1:
                share = int(_next(program_key, cursor) * (left + 1))
            left -= share
            task[_KIND], task[_LEFT], task[_LOAD] = _EXPAND, share, inner
            if bends:
                task[_KIND], task[_LOAD] = _EXPAND_SMOOTH, load
            task[_OUTER], task[_TILED] = code, tiled
            waiting += 1
    return length
