"""A model card (Mitchell et al., 2019) of a run: what was trained, on which images under which licenses, and its scores."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wildfern.files import write_text
from wildfern.launch.curated_record import earlier_readings, known_takedowns
from wildfern.launch.data_record import recorded_data
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable
from wildfern.recipes import Recipe
from wildfern.ssl.evaluation.stored_result import read_evaluation

CARD = "model_card.md"
_SHOWN = 20  # licenses


def write_model_card(folder: RunFolder, out: Path, loading: str) -> Path:
    """Write model_card.md beside the exported file `out` and return its path; `loading` is code that loads it."""
    path = out.parent / CARD
    write_text(path, "\n".join(model_card(folder, out.name, loading)) + "\n")
    return path


def model_card(folder: RunFolder, file: str, loading: str) -> Iterator[str]:
    """The lines of the card, in Markdown; `file` is the exported one."""
    recipe = folder.recipe(needs=())
    training = recipe.training
    yield f"# {_plain(recipe.model.backbone)}, pretrained by {_plain(recipe.method.name)}"
    yield ""
    yield f"A backbone without a classifier, from the run `{_plain(folder.path.name)}`, written by wildfern."
    yield ""
    yield f"- file: `{_plain(file)}`; weights of the run: SHA-256 `{folder.backbone_sha256()}`"
    yield f"- training: {training.steps:,} steps of {training.batch_size:,} images, without labels unless the method needs them"
    yield f"- seed {recipe.seed}; `recipe.yaml` of the run repeats it"
    yield ""
    yield "## Images"
    yield ""
    yield from _images(folder, recipe)
    yield "## Scores"
    yield ""
    yield from _scores(folder)
    yield "## Loading"
    yield ""
    yield "```python"
    yield from (line.removeprefix("    ") for line in loading.splitlines())
    yield "```"


def _images(folder: RunFolder, recipe: Recipe) -> Iterator[str]:
    try:
        recorded = recorded_data(folder)
    except RunError as error:
        recorded = []
        yield f"`data.json` of the run cannot be used: {_plain(str(error))}"
        yield ""
    for number, entry in enumerate(recipe.data):
        found: Mapping[str, Any] = recorded[number] if number < len(recorded) else {}
        items = found.get("items")
        count = "rendered while training" if items is None and "files" not in found else f"{items or 0:,} images"
        yield f"- `{_plain(entry.source)}`: {count}, weight {entry.weight:g}"
        if isinstance(found.get("curated"), dict):
            yield from _curated(found)
    yield ""


def _curated(entry: Mapping[str, Any]) -> Iterator[str]:
    found = entry["curated"]
    licenses = found.get("licenses")
    yield f"    - curated; manifest SHA-256 `{_plain(str(found.get('manifest')))}`, with the attribution of each image"
    if isinstance(licenses, dict):
        words = [f"{_plain(str(name))} ({count})" for name, count in list(licenses.items())[:_SHOWN]]
        yield f"    - licenses: {', '.join(words)}{' …' * (len(licenses) > _SHOWN)}"
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


def _scores(folder: RunFolder) -> Iterator[str]:
    found, _ = read_evaluation(folder.path)
    rows = [row for row in found.get("rows", []) if row["backbone"] in ("pretrained", "random", "start")]
    if not rows:
        yield "The run was not evaluated."
    else:
        yield "| data set | protocol | backbone | metric | value |"
        yield "|---|---|---|---|---|"
    for row in rows:
        value = f"{100 * row['value']:.2f} %" if row.get("share", True) else f"{row['value']:.4g}"
        names = (_plain(row[key]) for key in ("dataset", "protocol", "backbone", "metric"))
        yield f"| {' | '.join(names)} | {value} |"
    yield ""


def _plain(text: str) -> str:
    """A text of strangers, without what Markdown or HTML would make of it."""
    return "".join("" if character in "`|<>[]\\" else character for character in printable(text))
