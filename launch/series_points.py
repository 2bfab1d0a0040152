"""The points of a series: a grid of values, random points of it or of ranges, or a list in a file; and its runs, with seeds."""

import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wildfern.bounded_yaml import MOST_BYTES
from wildfern.files import read_bytes
from wildfern.generators.counter_rng import key as random_key
from wildfern.generators.counter_rng import uniform
from wildfern.launch.errors import RunError
from wildfern.launch.series_values import Range, Value, read_values, same
from wildfern.recipes import Problem, RecipeErrors, read_argument, read_yaml
from wildfern.recipes.errors import COMMAND_LINE
from wildfern.ssl.data.permutation import permuted

MOST_RUNS = 10_000
MOST_NAME = 150  # characters of a folder
SEED = "seed"


@dataclass(frozen=True)
class Point:
    """One setting: the values that vary, by key, and all changes of the recipe as `key=value`."""

    settings: dict[str, Any]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A run of a series: its folder within that of the series, its setting in words, its point, and its seed, if one is named."""

    name: str
    setting: str
    point: Point
    seed: int | None

    @property
    def overrides(self) -> list[str]:
        """All changes of the recipe."""
        return [*self.point.changes, *([] if self.seed is None else [f"{SEED}={self.seed}"])]


@dataclass(frozen=True)
class Axes:
    """The words `key=…` of a series: those with one value as they are, and those with several, or a range."""

    words: tuple[str, ...]
    varied: dict[str, list[Value] | Range]
    seeds: tuple[int, ...] | None

    @property
    def fixed(self) -> list[str]:
        """The changes that all points have."""
        return [word for word in self.words if _key(word) not in self.varied]

    def point(self, chosen: Mapping[str, Value]) -> Point:
        """The point with these values, its changes in the order of the words."""
        changes = [f"{_key(word)}={chosen[_key(word)].text}" if _key(word) in chosen else word for word in self.words]
        return Point({key: value.value for key, value in chosen.items()}, tuple(changes))


def read_axes(words: Sequence[str], seeds: Sequence[int] | None, split: bool = True) -> Axes:
    """The axes of a series. `split=False`: words have one value each, which may contain commas.

    Raises RecipeErrors with all errors.
    """
    problems: list[Problem] = []
    varied: dict[str, list[Value] | Range] = {}
    kept, seen = [], set()
    for word in words if split else ():
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            problems.append(Problem(COMMAND_LINE, "", f"{word!r} must be written as key=value"))
            continue
        if key in seen:
            problems.append(Problem(COMMAND_LINE, key, "is given twice: separate its values by commas"))
            continue
        seen.add(key)
        values, wrong = read_values(key, text)
        problems += wrong
        if isinstance(values, Range) or len(values) > 1:
            varied[key] = values
        kept.append(word)
    if (of_key := varied.pop(SEED, None)) is not None:
        kept = [word for word in kept if _key(word) != SEED]
        if seeds is not None:
            problems.append(Problem(COMMAND_LINE, SEED, "has several values here and in --seeds: give one of both"))
        elif isinstance(of_key, Range):
            problems.append(Problem(COMMAND_LINE, SEED, "cannot be drawn: name the seeds, for example seed=0,1,2"))
        else:
            seeds = [value.value for value in of_key]
    elif seeds is not None and any(_key(word) == SEED for word in words):
        problems.append(Problem(COMMAND_LINE, SEED, "is given here and in --seeds: give one of both"))
    if problems:
        raise RecipeErrors(problems)
    return Axes(tuple(kept if split else words), varied, None if seeds is None else tuple(seeds))


def grid(axes: Axes) -> list[Point]:
    """All combinations of the values; the last key changes fastest. Raises RunError for a range, and for too many."""
    lists: dict[str, list[Value]] = {}
    for key, values in axes.varied.items():
        if isinstance(values, Range):
            raise RunError(f"{key}: a range has no grid: add --random N for N random points")
        lists[key] = values
    _check_number(math.prod(map(len, lists.values())))
    return [axes.point(dict(zip(lists, chosen, strict=True))) for chosen in itertools.product(*lists.values())]


def random_points(axes: Axes, number: int, seed: int) -> list[Point]:
    """`number` different points, a pure function of the axes and the seed; a larger number adds points at the end.

    Keys with lists take places of a random order of their grid, which starts again after its last point if there are ranges.
    """
    if not axes.varied:
        raise RunError("--random draws from keys with several values or a range: give at least one")
    _check_number(number)
    lists = {key: values for key, values in axes.varied.items() if not isinstance(values, Range)}
    ranges = {key: values for key, values in axes.varied.items() if isinstance(values, Range)}
    size = math.prod(map(len, lists.values()))
    if not ranges and number > size:
        raise RunError(f"--random {number}: the grid has only {size} points; leave --random out to run all of them")
    if size > 2**62:
        raise RunError("the grid has more than 2^62 points: give fewer values, or ranges")
    _, places = permuted(np.arange(number), size, random_key("series", seed))
    points = []
    for index, place in enumerate(places.tolist()):
        chosen: dict[str, Value] = {}
        for key, values in axes.varied.items():
            if isinstance(values, Range):
                draw = uniform(np.array([random_key("series", seed, index, key)], np.uint64), 1).item()
                drawn = values.at(draw)
                chosen[key] = Value(repr(drawn), drawn)
            else:
                place, which = divmod(place, len(values))
                chosen[key] = values[which]
        points.append(axes.point(chosen))
    return points


def listed_points(axes: Axes, file: str | Path) -> list[Point]:
    """The points in a YAML file, a list of mappings {key: value} or of lists of changes. Raises RunError, RecipeErrors."""
    if axes.varied:
        raise RunError(f"--list names the settings: {', '.join(axes.varied)} must have one value")
    try:
        text = read_bytes(os.path.realpath(os.path.expanduser(file)), MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RunError(f"{file}: not UTF-8 text") from None
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}") from None
    entries, problems = read_yaml(text, str(file))
    if not problems and not (isinstance(entries, list) and entries):
        problems = [Problem(str(file), "", "must be a list of settings, such as - {optimizer.learning_rate: 1e-3}")]
    points = []
    for number, entry in enumerate([] if problems else entries):
        settings, changes, wrong = _entry(str(file), number, entry)
        problems += wrong
        if any(same(settings, point.settings) for point in points):
            problems.append(Problem(str(file), str(number), "is the same setting as an earlier one"))
        points.append(Point(settings, (*axes.fixed, *changes)))
    if problems:
        raise RecipeErrors(problems)
    return points


def _entry(file: str, number: int, entry: Any) -> tuple[dict[str, Any], list[str], list[Problem]]:
    """Settings, changes and problems of one entry of a list."""
    if isinstance(entry, dict) and entry:
        return entry, [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()], []
    if not isinstance(entry, list) or not all(isinstance(word, str) and "=" in word for word in entry):
        message = "must be a mapping of keys to values, or a list of changes such as [optimizer.learning_rate=1e-3]"
        return {}, [], [Problem(file, str(number), message)]
    settings, problems = {}, []
    for word in entry:
        value, wrong = read_argument(word.partition("=")[2], file, f"{number}.{_key(word)}")
        settings[_key(word)] = value
        problems += wrong
    return settings, entry, problems


def runs_of(points: Sequence[Point], seeds: Sequence[int] | None) -> list[Run]:
    """The runs of a series, those of one point together. Raises RunError if there are too many, or only one."""
    _check_number(len(points) * len(seeds or (0,)))
    if len(points) * len(seeds or (0,)) == 1 and not (points[0].settings or seeds):
        raise RunError(
            "nothing varies: give a key several values, for example optimizer.learning_rate=1e-3,3e-3, or --seeds 0,1,2"
        )
    names = _names(points)
    runs = []
    for point, name in zip(points, names, strict=True):
        for seed in (None,) if seeds is None else seeds:
            parts = [part for part in (name, "" if seed is None else f"{SEED}={seed}") if part]
            runs.append(Run(",".join(parts) or "run", name.replace(",", ", "), point, seed))
    return runs


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last parts of dotted keys that tell them apart: `optimizer.learning_rate` is `learning_rate`."""
    found = {}
    for key in keys:
        parts = key.split(".")
        endings = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
        found[key] = next(
            ending
            for ending in endings
            if not any(other != key and f".{other}".endswith(f".{ending}") for other in (*keys, SEED)) or ending == key
        )
    return found


def _names(points: Sequence[Point]) -> list[str]:
    """Folder names that say the settings, made of characters that need no quotes; numbered where they are long or equal."""
    short = short_keys(list(dict.fromkeys(key for point in points for key in point.settings)))
    names: list[str] = []
    for number, point in enumerate(points):
        parts = (f"{_plain(short[key])}={_plain(value)}" for key, value in point.settings.items())
        name = ",".join(parts)
        if len(name) > MOST_NAME or name in names:
            name = f"setting={number}"
        names.append(name)
    return names


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-.") if not isinstance(value, int | float) else text


def _check_number(number: int) -> None:
    if number > MOST_RUNS:
        raise RunError(
            f"a series has at most {MOST_RUNS:,} runs, and this one would have {number:,}: choose --random N"
        )


def _key(word: str) -> str:
    return word.partition("=")[0].strip()
