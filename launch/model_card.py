"""A model card (Mitchell et al., 2019) of a run: what was trained, on which images under which licenses, and its scores."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wildfern.files import write_text
from wildfern.launch.curated_record import earlier_readings, known_takedowns
from wildfern.launch.data_record import recorded_data
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable
from wildfern.recipes import DataEntry, Recipe
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.score_words import images_words
from wildfern.ssl.evaluation.stored_result import EVALUATION, read_evaluation

CARD = "model_card.md"
_SHOWN = 20  # licenses, and kinds of intervals
_RENDERED = "rendered while training"
_IDENTITY = {
    "names": "names and sizes of the files",
    "contents": "contents of the files",
    "chosen": "the chosen images",
    "clusters": "clusters that guided the batches",
}
_BACKBONES = {
    "pretrained": "the exported weights",
    "random": "the same network with random weights",
    "start": "the weights that training started from",
}


def write_model_card(folder: RunFolder, out: Path, loading: str, checked: str) -> Path:
    """Write model_card.md beside the exported file `out` and return its path.

    `loading` is code that loads the file from its folder; `checked` says what comparing its features with the run's found.
    """
    path = out.parent / CARD
    write_text(path, "\n".join(model_card(folder, out.name, loading, checked)) + "\n")
    return path


def model_card(folder: RunFolder, file: str, loading: str, checked: str) -> Iterator[str]:
    """The lines of the card, in Markdown; `file` is the exported one, or a folder."""
    recipe = folder.recipe(needs=())
    training, sha256 = recipe.training, folder.backbone_sha256()
    yield f"# {_plain(recipe.model.backbone)}, pretrained by {_plain(recipe.method.name)}"
    yield ""
    yield (
        f"A backbone without a classifier, from the run `{_plain(folder.path.name)}`, written by wildfern {version('wildfern')}."
    )
    yield ""
    yield f"- file: `{_plain(file)}`; weights of the run: SHA-256 `{sha256}`"
    yield f"- {_plain(checked)}"
    yield f"- training: {training.steps:,} steps of {training.batch_size:,} images, without labels unless the method needs them"
    if recipe.model.weights is not None:
        found = folder.start_weights().get("sha256")
        sha = f", SHA-256 `{_plain(str(found))}`" if found else ""
        yield f"- training started from `{_plain(recipe.model.weights)}`{sha}"
    yield f"- seed {recipe.seed}; the recipe below repeats the run"
    yield ""
    yield "## Loading"
    yield ""
    yield from _fenced("python", (line.removeprefix("    ") for line in loading.splitlines()))
    yield ""
    yield "## Images"
    yield ""
    yield from _images(folder, recipe)
    yield "## Scores"
    yield ""
    yield from _scores(folder, sha256)
    yield "## Recipe"
    yield ""
    yield from _fenced("yaml", recipe.as_yaml().splitlines())


def data_words(folder: RunFolder, recipe: Recipe) -> tuple[str, str]:
    """In a line each: what the run was trained on, and the licenses of its images, with numbers where they are known."""
    entries, licenses = [], []
    for entry, found in _data(folder, recipe)[0]:
        count = _count(found)
        entries.append(f"{entry.source} ({count})")
        licenses.append(", ".join(_licenses(found)) or ("none (rendered)" if count == _RENDERED else "unknown"))
    return "; ".join(entries), "; ".join(licenses)


def _data(folder: RunFolder, recipe: Recipe) -> tuple[list[tuple[DataEntry, Mapping[str, Any]]], str | None]:
    """Recipe entry and record of each source, and why the record cannot be used."""
    recorded: list[dict[str, Any]] = []
    problem = None
    try:
        recorded = recorded_data(folder)
    except RunError as error:
        problem = str(error)
    return [
        (entry, recorded[number] if number < len(recorded) else {}) for number, entry in enumerate(recipe.data)
    ], problem


def _images(folder: RunFolder, recipe: Recipe) -> Iterator[str]:
    entries, problem = _data(folder, recipe)
    if problem is not None:
        yield f"`data.json` of the run cannot be used: {_plain(problem)}"
        yield ""
    for entry, found in entries:
        yield f"- `{_plain(entry.source)}`: {_count(found)}, weight {entry.weight:g}"
        for key, words in _IDENTITY.items():
            if isinstance(value := found.get(key), str):
                yield f"    - {words}: SHA-256 `{_plain(value)}`"
        if isinstance(found.get("curated"), dict):
            yield from _curated(found)
    yield ""


def _count(found: Mapping[str, Any]) -> str:
    """How many images a source has, by its record."""
    items = found.get("items")
    return _RENDERED if items is None and "files" not in found else f"{items or 0:,} images"


def _licenses(found: Mapping[str, Any]) -> list[str]:
    """The licenses of a curated source with their numbers of images, the first ones."""
    curated = found.get("curated")
    licenses = curated.get("licenses") if isinstance(curated, dict) else None
    if not isinstance(licenses, dict):
        return []
    words = [f"{_plain(str(name))} ({_plain(str(count))})" for name, count in list(licenses.items())[:_SHOWN]]
    return words + ["…"] * (len(licenses) > _SHOWN)


def _curated(entry: Mapping[str, Any]) -> Iterator[str]:
    found = entry["curated"]
    yield f"    - curated; manifest SHA-256 `{_plain(str(found.get('manifest')))}`, with the attribution of each image"
    if words := _licenses(entry):
        yield f"    - licenses: {', '.join(words)}"
    _, gone = known_takedowns(entry)
    earlier = earlier_readings(entry)
    before = earlier[0].taken_down if earlier else gone
    if before:
        yield f"    - {before:,} of them had been taken down when the run started, and were not read"
    if (during := gone - before) > 0:
        last = max(one.last_step for one in earlier if one.taken_down < gone)
        verb, them = ("was", "it") if during == 1 else ("were", "them")
        yield (
            f"    - {during:,} of them {verb} taken down during the run, which may have read {them} up to step {last:,}, "
            "but not afterwards"
        )


def _scores(folder: RunFolder, sha256: str) -> Iterator[str]:
    stored, faults = read_evaluation(folder.path)
    for fault in faults:
        yield f"`{EVALUATION}` of the run: {_plain(fault)}"
        yield ""
    result = EvaluationResult.from_json(stored)
    rows = [row for row in result.rows if row["backbone"] in _BACKBONES]
    if rows and stored.get("backbone_sha256") not in (None, sha256):
        yield f"`{EVALUATION}` of the run is of other weights than these: evaluate the run again."
        rows = []
    elif not rows:
        yield "The run was not evaluated."
    else:
        yield "| data set | protocol | backbone | metric | value | interval | test images |"
        yield "|---|---|---|---|---|---|---|"
    for row in rows:
        names = (_plain(row[key]) for key in ("dataset", "protocol", "backbone", "metric"))
        values = (_value(row, row["value"]), _interval(row), "" if row["n"] is None else f"{row['n']:,}")
        yield f"| {' | '.join((*names, *values))} |"
    yield ""
    shown = dict.fromkeys(row["backbone"] for row in rows)
    yield from (f"- {name}: {_BACKBONES[name]}" for name in shown)
    used = dict.fromkeys(row["protocol"] for row in rows)
    yield from (f"- {_plain(name)}: {_plain(result.protocols[name])}" for name in used if name in result.protocols)
    splits = dict.fromkeys((row["dataset"], images_words(row)) for row in rows)
    yield from (f"- {_plain(dataset)}: {_plain(words)}" for dataset, words in splits if words)
    details = dict.fromkeys((row["protocol"], row["metric"], row["detail"]) for row in rows)
    said = [one for one in details if one[2]]
    for protocol, metric, detail in said[:_SHOWN]:
        yield f"- interval of {_plain(protocol)}, {_plain(metric)}: {_plain(detail)}"
    if len(said) > _SHOWN:
        yield f"- … and {len(said) - _SHOWN} more in {EVALUATION}"
    yield from [""] * bool(rows)


def _value(row: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.2f} %" if row["share"] else f"{value:.4g}"


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    return "" if low is None or high is None else f"{_value(row, low)} – {_value(row, high)}"


def _fenced(language: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines as a block of code, which no line of a stranger can end."""
    lines = [printable(line) for line in lines]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    yield from lines
    yield fence


def _plain(text: str) -> str:
    """A text of strangers, without what Markdown or HTML would make of it."""
    return "".join("" if character in "`|<>[]\\" else character for character in printable(text))
