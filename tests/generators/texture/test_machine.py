"""Texture programs: how they are drawn, and that running one is composing its functions."""

import numpy as np
import pytest

from wildfern.generators.counter_rng import uniform
from wildfern.generators.palette import NO_SECOND, SECOND, STYLE
from wildfern.generators.texture import lattice_noise as lattice
from wildfern.generators.texture import ops as op
from wildfern.generators.texture import points as bend
from wildfern.generators.texture import values as value
from wildfern.generators.texture.grammar import FINEST, LONGEST, SLOWEST, TASK
from wildfern.generators.texture.judge import GOOD, judge
from wildfern.generators.texture.machine import DEPTH, HEIGHT, SCRATCH, evaluate, run_width
from wildfern.generators.texture.ops import INSTRUCTIONS, PARAMETERS
from wildfern.generators.texture.text import expression, program_text
from wildfern.generators.texture.texture_class import (
    CLASS_ATTEMPTS,
    draw_class,
    draw_lattices,
    draw_view,
    move_parameters,
)

F = np.float32
PLANE = np.array([1, 0, 0, 0, 1, 0], F)


class Program:
    def __init__(self, class_key: int, least: int = 1, most: int = 16, attempt: int = 0):
        self.codes, self.parameters = np.full(LONGEST, -1, np.int32), np.zeros((LONGEST, PARAMETERS), F)
        self.lengths, self.style = np.zeros(2, np.int64), np.zeros(STYLE)
        cursor, tasks = np.zeros(1, np.uint64), np.empty((LONGEST, TASK))
        program = self.codes, self.parameters, self.lengths, self.style
        self.layers = draw_class(np.uint64(class_key), attempt, least, most, cursor, tasks, *program)
        self.length = self.lengths[self.layers - 1]
        self.salts = np.zeros(LONGEST, np.uint32)
        draw_lattices(np.uint64(class_key), self.length, self.salts)

    def names(self, layer: int = 0) -> list[str]:
        start = self.lengths[0] if layer else 0
        return [INSTRUCTIONS[code].name for code in self.codes[start : self.lengths[layer]]]


def planes_of(codes, parameters, salts, lengths, layers, view, grid) -> np.ndarray:
    width = run_width(grid)
    shapes = (DEPTH, 3, width), (HEIGHT, width), DEPTH, (SCRATCH, width)
    points, values, tones, scratch = (
        np.full(shape, 99, dtype) for shape, dtype in zip(shapes, (F, F, np.int64, F), strict=True)
    )
    planes = np.full((layers, grid, grid), np.nan, F)
    evaluate(codes, parameters, salts, lengths, layers, view, points, values, tones, scratch, planes)
    return planes


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return [Program(key) for key in range(2000)]


def test_codes_are_the_places_of_the_instructions():
    for code, instruction in enumerate(INSTRUCTIONS):
        assert getattr(op, instruction.name.upper()) == code
        assert len(instruction.parameters) <= PARAMETERS
        assert instruction.bends == (code < op.LEAVE)
        assert instruction.reads == (op.LEAVE < code <= op.CELLS)


def test_programs_leave_one_value_and_no_points(programs):
    """With the stacks of the machine, and room in each."""
    for program in programs:
        for layer in range(program.layers):
            height, depth = 0, 0
            for name in program.names(layer):
                instruction = INSTRUCTIONS[getattr(op, name.upper())]
                if name == "leave":
                    depth -= 1
                    continue
                assert height >= instruction.arity
                height += (not instruction.bends) - instruction.arity
                depth += instruction.bends
                assert 0 <= depth < DEPTH
                assert height + 2 < HEIGHT
            assert (height, depth) == (1, 0)
        assert program.length < LONGEST - 1


def test_complexity_counts_instructions():
    def counted(names):
        warps = names.count("warp")  # each brings two patterns of its own
        patterns = sum(INSTRUCTIONS[getattr(op, name.upper())].reads for name in names) - 2 * warps
        return len(names) - names.count("leave") - patterns - 2 * warps

    for least, most in ((1, 1), (3, 5), (16, 16)):
        counts = {counted(Program(key, least, most).names()) for key in range(300)}
        assert counts == set(range(least, most + 1))


def test_parameters_lie_in_their_ranges(programs):
    seen = set()
    for program in programs:
        for name, row in zip(program.names(), program.parameters, strict=False):
            seen.add(name)
            for parameter, number in zip(INSTRUCTIONS[getattr(op, name.upper())].parameters, row, strict=False):
                rate = parameter.name in ("frequency", "count")
                low = min(parameter.low, SLOWEST / 2) if rate else parameter.low  # half, for the patterns of a warp
                assert low * (1 - 1e-6) - 1e-6 <= number <= parameter.high * (1 + 1e-6)
                if parameter.scale == "whole":
                    assert number == int(number)
                if parameter.name == "frequency":
                    assert number <= FINEST
    assert seen == {instruction.name for instruction in INSTRUCTIONS}


def test_tile_only_instructions_occur_only_in_tiles(programs):
    for program in programs:
        open_bends = []
        for name in program.names():
            if name == "leave":
                open_bends.pop()
            elif INSTRUCTIONS[getattr(op, name.upper())].bends:
                open_bends.append(name)
            elif name in ("shape", "tone"):
                assert {"tile", "scatter"} & set(open_bends)


def test_patterns_in_tiles_are_slower_than_the_finest_allowed(programs):
    checked = 0
    for program in programs:
        counts = []
        if "turn" in program.names():  # may slow down what is inside
            continue
        for name, row in zip(program.names(), program.parameters, strict=False):
            instruction = INSTRUCTIONS[getattr(op, name.upper())]
            if name == "leave":
                counts.pop()
            elif instruction.bends:
                counts.append({"tile": row[1], "scatter": row[0]}.get(name, 1.0))
            elif name in ("stripes", "rings", "noise", "fractal", "cells"):
                assert row[0] * np.prod(counts) <= FINEST * (1 + 1e-5) or row[0] <= SLOWEST
                checked += len(counts) > 1
    assert checked > 1000


def test_the_machine_composes_functions():
    """difference(warp(noise, noise, tile(rings)), step(cells)), and a second expression: polar(stripes)."""
    codes = [op.NOISE, op.NOISE, op.WARP, op.TILE, op.RINGS, op.LEAVE, op.LEAVE, op.CELLS, op.STEP, op.DIFFERENCE]
    codes = np.array([*codes, op.POLAR, op.STRIPES, op.LEAVE], np.int32)
    rows = [(1.2,), (0.8,), (0.5,), (1, 1.7, 1), (2, 1.5, 0.2), (), (), (2, 0.8, 1), (0.4, 0.2), ()]
    rows += [(2, 1.3), (1.5, 3, 0.4), ()]
    parameters = np.array([[*row, *[0] * (PARAMETERS - len(row))] for row in rows], F)
    salts, lengths, grid = np.arange(13, dtype=np.uint32), np.array([10, 13]), 33
    view = np.array([1.1, -0.3, 0.2, 0.3, 1.1, -0.1], F)
    planes = planes_of(codes, parameters, salts, lengths, 2, view, grid)

    at = (np.arange(grid, dtype=F) + F(0.5)) * (F(2) / F(grid)) - F(1)
    v, u = (a.ravel() for a in np.meshgrid(at, at, indexing="ij"))
    x, y = view[0] * u + (view[1] * v + view[2]), view[3] * u + (view[4] * v + view[5])
    across, down, rings, cells, stripes = (np.empty_like(x) for _ in range(5))
    lattice.fractal_sum(x, y, F(1.2), 1, F(1), 0, np.uint32(0), across)
    lattice.fractal_sum(x, y, F(0.8), 1, F(1), 0, np.uint32(1), down)
    warped, tiled, polar = np.empty((2, x.size), F), np.empty((3, x.size), F), np.empty((2, x.size), F)
    bend.warp(x, y, F(0.5), across, down, *warped)
    bend.tile(*warped, bend.BRICKS, F(1.7), 1, np.uint32(3), *tiled)
    value.rings(tiled[0], tiled[1], F(2), F(1.5), F(0.2), rings)
    lattice.cells(x, y, F(2), F(0.8), 1, np.uint32(7), np.empty((4, x.size), F), cells)
    value.step(cells, F(0.4), F(0.2))
    value.difference(rings, cells)
    bend.polar(x, y, F(2), F(1.3), *polar)
    value.stripes(polar[0], F(1.5), F(3), F(0.4), stripes)
    np.testing.assert_array_equal(planes.reshape(2, -1), np.stack([rings, stripes]))


def test_tones_belong_to_the_innermost_tile():
    codes = np.array(
        [op.TILE, op.TURN, op.SCATTER, op.TONE, op.LEAVE, op.TONE, op.DARKER, op.LEAVE, op.LEAVE], np.int32
    )
    parameters = np.zeros((9, PARAMETERS), F)
    parameters[0, 1], parameters[1, 1:3], parameters[2, 0] = 1, 1, 3
    salts = np.arange(9, dtype=np.uint32)
    inner = planes_of(codes, parameters, salts, np.array([9]), 1, PLANE, 32)[0]
    outer = planes_of(codes[[0, 5, 8]], parameters, salts, np.array([3]), 1, PLANE, 32)[0]
    assert len(np.unique(outer)) == 4
    assert len(np.setdiff1d(inner, outer)) > 5
    assert (inner <= outer).all()


@pytest.mark.parametrize("variation", [1.0, 2.0])
def test_every_value_lies_between_0_and_1(programs, variation):
    """In all programs, far views and extreme instances included: no NaN, no overflow."""
    view, moved = np.empty(6, F), np.empty((LONGEST, PARAMETERS), F)
    for key, program in enumerate(programs[:1000]):
        move_parameters(np.uint64(key), variation, program.codes, program.length, program.parameters, moved)
        draw_view(np.uint64(key), variation, 6.0, view)
        planes = planes_of(program.codes, moved, program.salts, program.lengths, program.layers, view, 16)
        assert (planes >= -1e-5).all()
        assert (planes <= 1 + 1e-5).all()


def test_instances_move_parameters_as_declared():
    program = next(p for p in map(Program, range(100)) if {"turn", "stripes", "tile"} <= set(p.names()))
    moved = np.empty((LONGEST, PARAMETERS), F)
    arguments = program.codes, program.length, program.parameters, moved
    move_parameters(np.uint64(1), 0.0, *arguments)
    u = 2 * uniform(np.uint64(1), LONGEST * PARAMETERS).reshape(LONGEST, PARAMETERS) - 1
    still, changed = moved.copy(), moved
    move_parameters(np.uint64(1), 1.5, *arguments)
    for at in range(program.length):
        for k, parameter in enumerate(INSTRUCTIONS[program.codes[at]].parameters):
            number = program.parameters[at, k]
            if parameter.change == "redraw":
                assert still[at, k] == changed[at, k] == pytest.approx((u[at, k] + 1) / 2)
                continue
            assert still[at, k] == number
            step = 1.5 * parameter.amount * u[at, k]
            expected = {"keep": number, "factor": number * np.exp(step), "offset": number + step}[parameter.change]
            assert changed[at, k] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_views_turn_zoom_shift_and_flip():
    views = np.empty((400, 6), F)
    for key, view in enumerate(views):
        draw_view(np.uint64(key), 1.0, 2.0, view)
    a, b, x, c, d, y = views.T
    zoom = np.sqrt(np.abs(a * d - b * c))
    assert zoom.min() == pytest.approx(2 * np.exp(-0.28), abs=0.05)
    assert zoom.max() == pytest.approx(2 * np.exp(0.28), abs=0.05)
    assert 0.4 < ((a * d - b * c) < 0).mean() < 0.6
    angles = np.arctan2(-b, d) / (2 * np.pi)
    assert angles.min() == pytest.approx(-0.1, abs=0.01)
    assert angles.max() == pytest.approx(0.1, abs=0.01)
    for shift in (x, y):
        assert np.abs(shift).max() == pytest.approx(1.4, abs=0.05)
    draw_view(np.uint64(0), 0.0, 1.0, views[0])
    np.testing.assert_allclose(np.abs(views[0]), PLANE)


@pytest.mark.parametrize("grid", [8, 13, 64])
def test_the_plain_program_shows_something_in_every_view(grid):
    """The fallback of a class or an instance without a visible pattern."""
    program = Program(3, attempt=CLASS_ATTEMPTS)
    assert program.layers == 1
    assert program.style[SECOND] == NO_SECOND
    view, moved, counts = np.empty(6, F), np.empty((LONGEST, PARAMETERS), F), np.empty(16, np.int64)
    for key in range(500):
        for variation, extent in ((0.0, 0.2), (1.0, 0.35), (2.0, 1.0)):
            move_parameters(np.uint64(key), variation, program.codes, program.length, program.parameters, moved)
            draw_lattices(np.uint64(key), program.length, program.salts)
            draw_view(np.uint64(key), variation, min(extent, grid / 40), view)
            plane = planes_of(program.codes, moved, program.salts, program.lengths, 1, view, grid)[0]
            gray = (30 + 195 * (plane - plane.min()) / np.ptp(plane)).astype(np.uint8)
            assert judge(gray, counts, 18.0, 0.8, 0.3) == GOOD


def test_programs_read_as_text():
    codes = np.array([op.NOISE, op.NOISE, op.WARP, op.TILE, op.TONE, op.LEAVE, op.LEAVE, op.WAVE], np.int32)
    rows = [(1.25,), (0.5,), (0.4,), (3, 2, 0), (), (), (), (1.5, 0.7)]
    parameters = np.array([[*row, *[0] * (PARAMETERS - len(row))] for row in rows], F)
    text = "wave(cycles 1.5, warp(amount 0.4, noise(frequency 1.25), noise(frequency 0.5), tile(hexagons, count 2, none, tone)))"
    assert expression(codes, parameters) == text
    style = np.zeros(STYLE)
    style[:5] = 1, 4, 0.5, 0.02, 1
    whole = program_text(np.append(codes, op.TONE), np.append(parameters, parameters[:1], 0), np.array([8, 9]), style)
    assert whole == f"4 flat colors: {text}, shaded by tone, in relief"


def test_every_program_can_be_read(programs):
    for program in programs[:300]:
        text = program_text(program.codes, program.parameters, program.lengths, program.style)
        assert text.count("(") == text.count(")")
        for name in set(program.names()) - {"leave"}:
            assert name in text
