"""Which runs have seen images that are taken down, and in which steps."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.bounded_json import parse_json
from wildfern.files import read_lines
from wildfern.launch.builders import open_mixture
from wildfern.launch.data_record import recorded_data
from wildfern.launch.output_paths import is_run
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable
from wildfern.recipes.schema import DataEntry
from wildfern.ssl.curation.takedowns import Takedown
from wildfern.ssl.data import CuratedSource, Mixture
from wildfern.ssl.data.subset import Subset

METRICS = "metrics.jsonl"
_MOST_LINE = 2**20  # bytes
_AT_ONCE = 1 << 20  # indices
_SHOWN = 8


def runs_that_saw(folder: Path, taken: Sequence[Takedown], runs: Path) -> list[str]:
    """Lines for the user about each run below `runs` that trained on the curated folder; none if there are no images."""
    if not taken:
        return []
    lines = []
    for run in _runs(runs):
        try:
            found = _seen(RunFolder.for_reading(run), folder, {one.sha256 for one in taken})
        except (ValueError, OSError) as error:
            first = str(error).splitlines()[0]
            lines.append(f"{printable(run)}: cannot tell whether it has seen them: {printable(first)}")
            continue
        if found is None:
            continue
        if not len(found[0]):
            lines.append(f"{printable(run)}: has not seen them so far")
            continue
        indices, batch_size = found
        steps = np.unique(indices // batch_size)
        shown = ", ".join(map(str, steps[:_SHOWN].tolist())) + (" …" if len(steps) > _SHOWN else "")
        which = ",".join(map(str, indices[:_SHOWN].tolist()))
        lines.append(
            f"{printable(run)}: reads them {len(indices):,} times up to its last logged step, in {len(steps):,} steps: {shown}"
        )
        lines.append(f"  wildfern views {shlex.quote(str(run))} --indices {which} (draws what takes their places now)")
    return lines or [f"no run in {runs} was trained on {folder} (--runs names another folder)"]


def _runs(folder: Path) -> Iterator[Path]:
    """The runs in a folder, or the folder itself if it is one; series have theirs one level below."""
    if is_run(folder):
        yield folder
    elif folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield from ([path] if is_run(path) else filter(is_run, sorted(path.iterdir())))


def _seen(run: RunFolder, folder: Path, digests: set[str]) -> tuple[NDArray[np.int64], int] | None:
    """Global indices at which a run has read these images, and its batch size; None if it was not trained on the folder."""
    recipe = run.recipe(needs=())
    entries = [
        _with_full_path(entry, told) for entry, told in zip(recipe.data, _folders(run, len(recipe.data)), strict=True)
    ]
    names = [entry.source.partition(":") for entry in entries]
    mine = [n for n, (kind, _, path) in enumerate(names) if kind == "curated" and _same(Path(path), folder)]
    if not mine:
        return None
    mixture = open_mixture(recipe.model_copy(update={"data": entries}))
    steps = min(_logged(run) + recipe.training.log_every, recipe.training.steps)
    batch_size = recipe.training.batch_size
    found = [np.zeros(0, np.int64)]
    wanted = {number: _items(mixture, number, digests) for number in mine}
    for start in range(0, steps * batch_size, _AT_ONCE):
        indices = np.arange(start, min(start + _AT_ONCE, steps * batch_size))
        components, _, items = mixture.locate(indices)
        for number, some in wanted.items():
            found.append(indices[(components == number) & np.isin(items, some)])
    return np.sort(np.concatenate(found)), batch_size


def _folders(run: RunFolder, count: int) -> list[str | None]:
    """The full path of each curated folder, as the run recorded it."""
    told = [entry.get("curated") for entry in recorded_data(run)]
    folders = [one.get("folder") if isinstance(one, dict) else None for one in told]
    return [*(one if isinstance(one, str) else None for one in folders), *[None] * count][:count]


def _with_full_path(entry: DataEntry, folder: str | None) -> DataEntry:
    return entry if folder is None else entry.model_copy(update={"source": f"curated:{folder}"})


def _logged(run: RunFolder) -> int:
    """The last step in the metrics of a run; it may have trained some more since."""
    last = 0
    for line in read_lines(run.path / METRICS, _MOST_LINE):
        with suppress(ValueError, TypeError, AttributeError):  # the last line of a run may be cut off
            last = max(last, int(parse_json(line or b"").get("step", 0)))
    return last


def _items(mixture: Mixture, number: int, digests: set[str]) -> NDArray[np.int64]:
    source = mixture.sources[number]
    inner = source.source if isinstance(source, Subset) else source
    assert isinstance(inner, CuratedSource)
    items = np.array(inner.items_of(digests), np.int64)
    return np.flatnonzero(np.isin(source.items, items)) if isinstance(source, Subset) else items


def _same(one: Path, other: Path) -> bool:
    return one.expanduser().resolve() == other.expanduser().resolve()
