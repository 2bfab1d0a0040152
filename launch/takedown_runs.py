"""Which runs have seen images that are taken down, and in which steps."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wildfern.files import open_reading
from wildfern.launch.builders import open_mixture
from wildfern.launch.cluster.run_lock import LOCK
from wildfern.launch.curated_record import Reading, earlier_readings, known_takedowns, last_step
from wildfern.launch.data_record import recorded_data
from wildfern.launch.output_paths import is_run
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable
from wildfern.recipes.schema import DataEntry
from wildfern.ssl.curation.takedowns import Takedown
from wildfern.ssl.data import CuratedSource, Source
from wildfern.ssl.data.subset import Subset

_AT_ONCE = 1 << 20  # indices
_SHOWN = 8


class Seen(NamedTuple):
    """Where a run has read the images that are asked for.

    - indices: global indices int64[N], batch_size of them in each step. last_step: the last step that may have read them.
    - reads: whether its newest process does not know that they are taken down, all of them.
    """

    indices: NDArray[np.int64]
    batch_size: int
    last_step: int
    reads: bool


def runs_that_saw(folder: Path, taken: Sequence[Takedown], runs: Path) -> list[str]:
    """Lines for the user about each run below `runs` that trained on the curated folder; none if there are no images."""
    if not taken:
        return []
    if not runs.is_dir():
        what = f"{runs} is not a folder" if os.path.lexists(runs) else f"there is no folder {runs}"
        return [f"{printable(what)}: no run was looked through for them; name the folder of your runs with --runs"]
    lines, looked_through = [], 0
    for run in _runs(runs):
        looked_through += 1
        try:
            found = _seen(RunFolder.for_reading(run), folder, {one.sha256 for one in taken})
        except (ValueError, OSError) as error:
            first = str(error).splitlines()[0]
            lines.append(f"{printable(run)}: cannot tell whether it has seen them: {printable(first)}")
            continue
        if found is not None:
            lines += _told(run, found)
    if not looked_through:
        return [
            f"there is no run in {printable(runs)}: none was looked through for them; name their folder with --runs"
        ]
    return lines or [f"no run in {printable(runs)} was trained on {printable(folder)} (--runs names another folder)"]


def _told(run: Path, found: Seen) -> Iterator[str]:
    going_on = "it is running, and reads them until it is stopped and resumed" if found.reads and _runs_now(run) else ""
    if not len(found.indices):
        so_far = " so far" if found.reads else ""
        yield f"{printable(run)}: has not seen them{so_far}{'; ' if going_on else ''}{going_on}"
        return
    if not found.reads:
        going_on = "it was resumed after they were taken down, and does not read them any more"
    times, steps = len(found.indices), np.unique(found.indices // found.batch_size)
    shown = ", ".join(map(str, steps[:_SHOWN].tolist())) + (" …" if len(steps) > _SHOWN else "")
    which = ",".join(map(str, found.indices[:_SHOWN].tolist()))
    yield (
        f"{printable(run)}: reads them {times:,} time{'s' * (times != 1)} up to step {found.last_step:,}, "
        f"in {len(steps):,} step{'s' * (len(steps) != 1)}: {shown}{'; ' if going_on else ''}{going_on}"
    )
    yield f"  wildfern views {shlex.quote(str(run))} --indices {which} (draws what takes their places now)"


def _runs(folder: Path) -> Iterator[Path]:
    """The runs in a folder, or the folder itself if it is one; series have theirs one level below."""
    if is_run(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from ([path] if is_run(path) else filter(is_run, sorted(path.iterdir())))


def _runs_now(run: Path) -> bool:
    """Whether a process holds the lock of a run; False where that cannot be told."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        with open_reading(run / LOCK) as file:
            if file.read(1):  # else nobody holds it, and a run that starts now must not find it taken by this question
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # ends with the block
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _seen(run: RunFolder, folder: Path, digests: set[str]) -> Seen | None:
    """Where a run has read these images; None if it was not trained on the folder.

    Each process of the run has read those that it did not know to be taken down, in all steps up to its last.
    """
    recipe = run.recipe(needs=())
    recorded = [*recorded_data(run), *[{}] * len(recipe.data)][: len(recipe.data)]
    entries = [_with_full_path(entry, told) for entry, told in zip(recipe.data, recorded, strict=True)]
    names = [entry.source.partition(":") for entry in entries]
    mine = [n for n, (kind, _, path) in enumerate(names) if kind == "curated" and _same(Path(path), folder)]
    if not mine:
        return None
    mixture = open_mixture(recipe.model_copy(update={"data": entries}))
    batch_size = recipe.training.batch_size
    last: dict[int, NDArray[np.int64]] = {}  # of each source: for each item the last step that may have read it
    reads = False
    for number in mine:
        newest = Reading(*known_takedowns(recorded[number]), last_step(run, recipe))
        earlier = [_last_steps(mixture.sources[number], digests, one) for one in earlier_readings(recorded[number])]
        now = _last_steps(mixture.sources[number], digests, newest)
        reads |= bool((now >= 0).any())
        last[number] = np.max([*earlier, now], axis=0)
    end = max(int(steps.max()) for steps in last.values())
    found = [np.zeros(0, np.int64)]
    for start in range(0, (end + 1) * batch_size, _AT_ONCE):
        indices = np.arange(start, min(start + _AT_ONCE, (end + 1) * batch_size))
        components, _, items = mixture.locate(indices)
        for number, steps in last.items():
            own = components == number
            found.append(indices[own][indices[own] // batch_size <= steps[items[own]]])
    return Seen(np.sort(np.concatenate(found)), batch_size, end, reads)


def _last_steps(source: Source, digests: set[str], reading: Reading) -> NDArray[np.int64]:
    """For each item of a source the last step in which such processes may have read one of these images; -1 for all others."""
    inner = source.source if isinstance(source, Subset) else source
    assert isinstance(inner, CuratedSource)
    known = set(inner.taken_down) - set(inner.taken_down_since(reading.takedowns))
    steps = np.full(inner.num_items, -1, np.int64)
    for item in inner.items_of(digests):
        if inner.item_name(item) not in known:
            steps[item] = reading.last_step
    return steps[source.items] if isinstance(source, Subset) else steps


def _with_full_path(entry: DataEntry, recorded: dict[str, object]) -> DataEntry:
    """The entry of a curated folder with its full path, as the run recorded it."""
    curated = recorded.get("curated")
    folder = curated.get("folder") if isinstance(curated, dict) else None
    return entry.model_copy(update={"source": f"curated:{folder}"}) if isinstance(folder, str) else entry


def _same(one: Path, other: Path) -> bool:
    return one.expanduser().resolve() == other.expanduser().resolve()
