"""What a run records of curated folders: what was taken down, and up to which step it may have read that before."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wildfern.files import read_lines
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.data import CuratedSource, Mixture, Source
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.data.subset import Subset
from wildfern.ssl.tracking.json_line import MOST_LINE, last_lines, step_of
from wildfern.ssl.training.checkpoints import checkpoint_steps

METRICS = "metrics.jsonl"
_MOST_COUNT = 2**40  # of steps and takedowns


class Reading(NamedTuple):
    """Processes of a run, one after the other, that knew the same takedowns of a curated source.

    - takedowns: how many were listed when they started. taken_down: how many images of the run those are.
    - last_step: the last step that they may have trained, counted from 0; -1: none.
    """

    takedowns: int
    taken_down: int
    last_step: int


def curated_of(source: Source) -> CuratedSource | None:
    """The curated source that this one is, or takes some images of."""
    inner = source.source if isinstance(source, Subset) else source
    return inner if isinstance(inner, CuratedSource) else None


def any_curated(mixture: Mixture) -> bool:
    return any(curated_of(source) is not None for source in mixture.sources)


def curated_record(source: Source, then: Mapping[str, Any], trained: int | None) -> dict[str, Any]:
    """What is recorded of a curated source; empty for another one.

    `then`: its entry before. `trained`: the last step that the run may have trained before; None for a new run.
    """
    if (curated := curated_of(source)) is None:
        return {}
    earlier = [] if trained is None else earlier_readings(then)
    if trained is not None and trained >= 0:
        takedowns, taken_down = known_takedowns(then)
        if earlier and earlier[-1].takedowns == takedowns:
            trained = max(trained, earlier.pop().last_step)  # it may have gone back to a checkpoint since
        earlier.append(Reading(takedowns, taken_down, trained))
    return {"curated": curated.record() | ({"earlier": [one._asdict() for one in earlier]} if earlier else {})}


def known_takedowns(entry: Mapping[str, Any]) -> tuple[int, int]:
    """`takedowns` and `taken_down` of an entry of `data.json`: what its newest process knew.

    0 where it does not say: then all images count as read.
    """
    found = entry.get("curated")
    values = [found.get(name) if isinstance(found, dict) else None for name in ("takedowns", "taken_down")]
    takedowns, taken_down = (value if _is_count(value) else 0 for value in values)
    return takedowns, taken_down


def earlier_readings(entry: Mapping[str, Any]) -> list[Reading]:
    """What the processes before the newest one knew, oldest first, by an entry of `data.json`; empty before a resume.

    Those that cannot have been written by a run are left out.
    """
    curated = entry.get("curated")
    found = curated.get("earlier") if isinstance(curated, dict) else None
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    values = [[row.get(name) for name in Reading._fields] for row in rows]
    return [Reading(*row) for row in values if all(map(_is_count, row))]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST_COUNT


def last_step(folder: RunFolder, recipe: Recipe) -> int:
    """The last step, counted from 0, that a run of this recipe may have trained so far.

    That is the one whose line of the log is due next: the run may have been killed before it was written. Raises OSError if there
    is no log.
    """
    path = folder.path / METRICS
    last = _newest(last_lines(path))  # lines are written in order of step
    if last < 0:
        last = _newest(read_lines(path, MOST_LINE))
    return _due_after(max(last, _saved(folder) - 1), recipe)


def _newest(lines: Iterable[bytes | None]) -> int:
    """The largest step of some lines of a log; -1 if none has any. The last line of a run may be cut off."""
    steps = (step_of(line) for line in lines)
    return max((step for step in steps if _is_count(step)), default=-1)


def trained_before(folder: RunFolder, former: Recipe) -> int:
    """The same of a run that is being resumed; without a log, only its checkpoints tell. -1 if nothing was trained."""
    try:
        return last_step(folder, former)
    except FileNotFoundError:
        saved = _saved(folder)
        return _due_after(saved - 1, former) if saved else -1


def _due_after(step: int, recipe: Recipe) -> int:
    """The next step that is logged: the first of the run, each `log_every`-th, the last."""
    every = recipe.training.log_every
    due = 0 if step < 0 else ((step + 1) // every + 1) * every - 1
    return min(due, recipe.training.steps - 1)


def _saved(folder: RunFolder) -> int:
    """Steps of the newest checkpoint, also of a damaged one."""
    return max(checkpoint_steps(folder.path / "checkpoints"), default=0)


def evaluated_outside(recipe: Recipe, mixture: Mixture) -> list[str]:
    """A message if the recipe evaluates on a folder that a curated source chose images from: it reads the others there, too."""
    folders = {
        one for source in mixture.sources if (found := curated_of(source)) is not None for one in found.containers
    }
    wrong = []
    for entry in recipe.evaluation.on:
        scheme, _, place = entry.source.partition(":")
        if scheme in ("folder", "parquet") and any(_overlap(expanded(place).resolve(), Path(one)) for one in folders):
            wrong.append(entry.source)
    return [
        f"evaluation.on reads {name} as a whole, also the images that the curation left out and those that were taken down; "
        "evaluation.on=[] leaves the evaluation out"
        for name in wrong
    ]


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents
