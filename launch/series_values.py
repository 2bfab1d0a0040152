"""The values of a key in a series: `0.1,0.2`, `[0.2,1.0],[0.5,1.0]`, `log:1e-4..1e-2`."""

import math
import re
from dataclasses import dataclass
from typing import Any

from wildfern.recipes import Problem, read_argument
from wildfern.recipes.errors import COMMAND_LINE

RANGE = re.compile(r"\s*(log|uniform):(.*?)\.\.(.*)", re.DOTALL)
DIGITS = 4  # of a value that is drawn from a range
_OPENS, _CLOSES = "[{", "]}"


@dataclass(frozen=True)
class Range:
    """An interval to draw from: `kind` is uniform, or log for uniform in the logarithm."""

    kind: str
    low: float
    high: float

    def at(self, uniform: float) -> float:
        """The value at a number in [0, 1), rounded to four significant digits."""
        if self.kind == "log":
            value = math.exp(math.log(self.low) + uniform * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + uniform * (self.high - self.low)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Value:
    """One value of a key: as written, to be handed on to a run, and as it is read."""

    text: str
    value: Any


def split_values(text: str) -> list[str]:
    """The parts of a text between commas, without blanks around; commas in YAML's brackets, braces and quotes do not count.

    As in YAML, a bracket or quote counts only where a value starts: that of `it's` does not.
    """
    parts, begin, depth, quote, starts, place = [], 0, 0, "", True, 0
    while place < len(text):
        character = text[place]
        if quote:
            if quote == '"' and character == "\\":
                place += 1
            elif character == quote:
                quote, starts = "", character == "'"  # two in a row inside of '…' are one, and do not end it
        elif starts and character in "'\"":
            quote = character
        elif character in _OPENS and (starts or depth):
            depth, starts = depth + 1, True
        elif character in _CLOSES and depth:
            depth, starts = depth - 1, False
        elif character == "," and not depth:
            parts.append(text[begin:place].strip())
            begin, starts = place + 1, True
        elif depth and (character == "," or (character == ":" and text[place + 1 : place + 2] in (" ", ""))):
            starts = True
        elif not character.isspace():
            starts = False
        place += 1
    return [*parts, text[begin:].strip()]


def read_values(key: str, text: str) -> tuple[list[Value] | Range, list[Problem]]:
    """The values of `key=text`, or its range, and what is wrong with them."""
    if found := RANGE.fullmatch(text):
        return _range(key, *found.groups())
    parts = split_values(text)
    values, problems = [], []
    for part in parts:
        if not part and len(parts) > 1:
            problems.append(Problem(COMMAND_LINE, key, f"has an empty value between commas in {text!r}"))
            continue
        value, wrong = read_argument(part, COMMAND_LINE, key)
        problems += wrong
        if not wrong and any(same(value, other.value) for other in values):
            problems.append(Problem(COMMAND_LINE, key, f"has the value {part} twice"))
        values.append(Value(part, value))
    return values, problems


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; true is not 1."""
    return type(one) is type(other) and one == other


def _range(key: str, kind: str, low: str, high: str) -> tuple[Range, list[Problem]]:
    bounds = []
    for text in (low, high):
        value, wrong = read_argument(text, COMMAND_LINE, key)
        if wrong or isinstance(value, bool) or not isinstance(value, int | float):
            message = (
                f"a range is {kind}:LOW..HIGH with two numbers, for example {kind}:1e-4..1e-2; got {text.strip()!r}"
            )
            return Range(kind, 0, 1), [Problem(COMMAND_LINE, key, message)]
        bounds.append(float(value))
    found = Range(kind, *bounds)
    if not found.low < found.high:
        return found, [Problem(COMMAND_LINE, key, f"the range ends before it starts: {low.strip()}..{high.strip()}")]
    if kind == "log" and found.low <= 0:
        return found, [Problem(COMMAND_LINE, key, f"a range in the logarithm starts above 0, got {low.strip()}")]
    return found, []
