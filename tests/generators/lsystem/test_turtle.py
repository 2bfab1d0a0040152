"""The turtle against one in plain Python that makes the same draws."""

import math

import numpy as np
import pytest

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.generators.lsystem.grammar import MAX_BRACKETS, RULES
from wildfern.generators.lsystem.turtle import walk

TEXT = "[+F-F][-F]" + RULES[1] + "-" + RULES[3].replace("F", RULES[0], 3)
START = np.array([10.0, 20.0, 0.1, 6.0, 0.15, 7.0])  # x, y, heading, pen, direction and girth of the branch here
TURN, BEND, LENGTH, RATIOS = (10.0, 39.0), (5.0, 30.0), 25.0, (0.8, 0.9)
PUBLISHED = (1.5, False, False, 1, 0.0)


def walked(text, hand=1.0, bend=BEND, form=PUBLISHED, tree=3, turn=TURN):
    segments = np.full((2 + text.count("F") * form[3], 6), np.nan)
    symbols, stack = np.frombuffer(text.encode(), np.uint8), np.empty((MAX_BRACKETS, 6))
    arguments = np.uint64(key("tree", tree)), symbols, START.copy(), hand, np.array(turn), np.array(bend)
    count = walk(*arguments, LENGTH, np.array(RATIOS), form, stack, segments, 2)
    assert count == len(segments)
    assert np.isnan(segments[:2]).all()
    return segments[2:]


def plain_turtle(text, hand, bend, form, tree):
    thinnest, taper, smooth, pieces, jag = form
    draws = {part: iter(uniform(fold(key("tree", tree), part), 2 * pieces * len(text))[0]) for part in (100, 101, 102)}
    x, y, heading, pen, direction, girth = START
    memory, rows = [], []
    for symbol in text:
        if symbol == "F":
            first, thick = (direction if smooth else heading), (girth if taper else pen)
            bow = bend[0] + (bend[1] - bend[0]) * next(draws[101])
            heading += hand * (bow if next(draws[101]) < 0.5 else -bow) / 360
            step = LENGTH * (RATIOS[0] if memory else RATIOS[1]) / pieces
            for piece in range(pieces):
                angle = (
                    first + (heading - first) * (piece + 0.5) / pieces + hand * jag / 360 * (2 * next(draws[102]) - 1)
                )
                new = x + step * math.cos(math.tau * angle), y - step * math.sin(math.tau * angle)
                widths = [thick + (pen - thick) * (piece + end) / pieces for end in (0, 1)]
                rows.append([x, y, *new, *widths])
                x, y = new
            direction, girth = heading, pen
        elif symbol == "[":
            memory.append((x, y, heading, pen, direction, girth))
        elif symbol == "]":
            x, y, heading, pen, direction, girth = memory.pop()
        else:
            angle = TURN[0] + (TURN[1] - TURN[0]) * next(draws[100])
            heading += hand * (angle if symbol == "+" else -angle) / 360
            pen = max(pen * (RATIOS[0] if symbol == "+" else RATIOS[1]), thinnest)
    return np.array(rows)


@pytest.mark.parametrize("hand", [1.0, -1.0])
@pytest.mark.parametrize(
    ("bend", "form"),
    [
        ((0.0, 0.0), PUBLISHED),
        ((0.0, 0.0), (4.0, True, False, 1, 0.0)),
        (BEND, (1.5, False, True, 5, 0.0)),
        (BEND, (1.5, True, True, 3, 20.0)),
    ],
)
def test_the_turtle_matches_a_plain_python_turtle(hand, bend, form):
    for tree in range(5):
        np.testing.assert_allclose(
            walked(TEXT, hand, bend, form, tree), plain_turtle(TEXT, hand, bend, form, tree), atol=1e-9
        )


def test_turns_widths_and_lengths_follow_the_symbols():
    """Published form: + is to the left on the screen, where y points down, and λ1, λ2 thin the pen and scale lengths."""
    one, left, right, inside, back = walked("F+F-F[-F]F", bend=(0.0, 0.0))
    headings = [-math.degrees(math.atan2(s[3] - s[1], s[2] - s[0])) for s in (one, left, right, inside, back)]
    assert headings[0] == pytest.approx(36.0)
    assert 10 <= headings[1] - headings[0] <= 39
    assert 10 <= headings[1] - headings[2] <= 39
    assert 10 <= headings[2] - headings[3] <= 39
    assert headings[4] == pytest.approx(headings[2])
    np.testing.assert_allclose(back[:2], right[2:4])
    np.testing.assert_allclose(
        [s[4] for s in (one, left, right, inside, back)], 6 * np.cumprod([1, 0.8, 0.9, 0.9, 1 / 0.9])
    )
    lengths = [math.hypot(s[2] - s[0], s[3] - s[1]) for s in (one, left, right, inside, back)]
    np.testing.assert_allclose(lengths, 25 * np.array([0.9, 0.9, 0.9, 0.8, 0.9]))


def test_the_pen_is_never_thinner_than_the_thinnest():
    widths = walked("F" + "+F" * 40, form=(2.5, False, False, 1, 0.0))[:, 4]
    assert widths.min() == 2.5
    assert (np.diff(widths) <= 0).all()


def test_smooth_branches_have_no_kinks_and_bend_as_requested():
    text, form = "F" + "+F" * 31, (1.5, True, True, 10, 0.0)
    segments = walked(text, bend=(20.0, 30.0), form=form, turn=(0.0, 0.0))[10:]
    headings = np.degrees(np.unwrap(np.arctan2(-(segments[:, 3] - segments[:, 1]), segments[:, 2] - segments[:, 0])))
    assert np.abs(np.diff(headings)).max() < 3.01
    bends = (
        np.diff(headings.reshape(31, 10)[:, [0, -1]], axis=1) / 0.9
    )  # the first and last of ten pieces are 9/10 apart
    assert ((np.abs(bends) > 19.99) & (np.abs(bends) < 30.01)).all()
    assert 5 < (bends > 0).sum() < 26
    np.testing.assert_allclose(segments[1:, 4], segments[:-1, 5])
