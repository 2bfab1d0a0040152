"""A model card (Mitchell et al., 2019) of a run: what was trained, on which images under which licenses, and its scores."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wildfern.files import write_text
from wildfern.launch.curated_record import earlier_readings, known_takedowns
from wildfern.launch.data_record import recorded_data
from wildfern.launch.errors import RunError
from wildfern.launch.markdown import fenced, plain
from wildfern.launch.model_card_scores import score_lines
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import DataEntry, Recipe
from wildfern.recipes.yaml_text import write_yaml
from wildfern.registry import METHODS

CARD = "model_card.md"
_SHOWN = 20  # licenses
_WIDTH = 110  # of the recipe
_BRACES = {dict: "{}", list: "[]"}
_RENDERED = "rendered while training"
_IDENTITY = {
    "names": "names and sizes of the files",
    "contents": "contents of the files",
    "chosen": "the chosen images",
    "clusters": "clusters that guided the batches",
}


def write_model_card(folder: RunFolder, out: Path, loading: str, checked: str, segmenter: Sequence[str] = ()) -> Path:
    """Write model_card.md beside the exported file `out` and return its path.

    `loading` is code that loads the file from its folder; `checked` says what comparing its output with the run's found.
    `segmenter` says what the file maps to what, if it is a backbone with its decoder.
    """
    path = out.parent / CARD
    write_text(path, "\n".join(model_card(folder, out.name, loading, checked, segmenter)) + "\n")
    return path


def model_card(
    folder: RunFolder, file: str, loading: str, checked: str, segmenter: Sequence[str] = ()
) -> Iterator[str]:
    """The lines of the card, in Markdown; `file` is the exported one, or a folder."""
    recipe = folder.recipe(needs=())
    training, sha256 = recipe.training, folder.backbone_sha256()
    yield f"# {plain(recipe.model.backbone)}, pretrained by {plain(recipe.method.name)}"
    yield ""
    what = "A segmenter: a backbone and its decoder" if segmenter else "A backbone without a classifier"
    yield f"{what}, from the run `{plain(folder.path.name)}`, written by wildfern {version('wildfern')}."
    yield ""
    yield f"- file: `{plain(file)}`; weights of the run: SHA-256 `{sha256}`"
    yield f"- {plain(checked)}"
    yield f"- training: {training.steps:,} steps of {training.batch_size:,} images{_labels(recipe)}"
    if recipe.model.weights is not None:
        found = folder.start_weights().get("sha256")
        sha = f", SHA-256 `{plain(str(found))}`" if found else ""
        yield f"- training started from `{plain(recipe.model.weights)}`{sha}"
    yield f"- seed {recipe.seed}; the recipe below repeats the run"
    yield ""
    yield "## Loading"
    yield ""
    yield from fenced("python", (line.removeprefix("    ") for line in loading.splitlines()))
    yield ""
    if segmenter:
        yield "## Segmenter"
        yield ""
        yield from (f"- {plain(line)}" for line in segmenter)
        yield ""
    yield "## Images"
    yield ""
    yield from _images(folder, recipe)
    yield "## Scores"
    yield ""
    yield from score_lines(folder, sha256)
    yield "## Recipe"
    yield ""
    yield from fenced("yaml", _compact(recipe))


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
        yield f"`data.json` of the run cannot be used: {plain(problem)}"
        yield ""
    for entry, found in entries:
        yield f"- `{plain(entry.source)}`: {_count(found)}, weight {entry.weight:g}"
        for key, words in _IDENTITY.items():
            if isinstance(value := found.get(key), str):
                yield f"    - {words}: SHA-256 `{plain(value)}`"
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
    words = [f"{plain(str(name))} ({plain(str(count))})" for name, count in list(licenses.items())[:_SHOWN]]
    return words + ["…"] * (len(licenses) > _SHOWN)


def _curated(entry: Mapping[str, Any]) -> Iterator[str]:
    found = entry["curated"]
    yield f"    - curated; manifest SHA-256 `{plain(str(found.get('manifest')))}`, with the attribution of each image"
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


def _compact(recipe: Recipe) -> Iterator[str]:
    """The recipe as YAML, with as many keys in a line as fit."""
    for section, value in recipe.as_dict().items():
        if not isinstance(value, dict | list) or not value:
            yield from f"{section}: {_flow(value)}".splitlines()
            continue
        first, last = _BRACES[type(value)]
        line = f"{section}: {first}"
        for part in _parts(value):
            if len(line) + len(part) > _WIDTH:
                yield from line.rstrip().splitlines()
                line = "  "
            line += f"{part}, "
        yield from (line.removesuffix(", ") + last).splitlines()


def _flow(value: Any) -> str:
    """A value as YAML that may stand in braces."""
    if not isinstance(value, dict | list):
        return write_yaml([value]).strip()[1:-1]
    first, last = _BRACES[type(value)]
    return f"{first}{', '.join(_parts(value))}{last}"


def _parts(value: dict[str, Any] | list[Any]) -> list[str]:
    items = value.items() if isinstance(value, dict) else ()
    return [f"{_flow(key)}: {_flow(item)}" for key, item in items] or [_flow(item) for item in value]


def _labels(recipe: Recipe) -> str:
    """Whether the method read labels, if it is known here."""
    needs = getattr(METHODS[recipe.method.name], "needs", None) if recipe.method.name in METHODS else None
    if needs is None:
        return ""
    return ", without labels" if needs.labels is None else ", with their labels"
