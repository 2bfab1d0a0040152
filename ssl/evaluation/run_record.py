"""Read a run folder back: whatever is there, and the names of what is not."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wildfern.bounded_json import read_json
from wildfern.bounded_yaml import MOST_BYTES as MOST_YAML
from wildfern.bounded_yaml import parse_yaml
from wildfern.files import open_reading, read_bytes
from wildfern.ssl.evaluation.report.downsampling import Series
from wildfern.ssl.evaluation.report.png import check_png
from wildfern.ssl.evaluation.report.series import read_series
from wildfern.ssl.evaluation.report.skipped_files import SkippedFiles, read_skipped
from wildfern.ssl.evaluation.stored_result import EVALUATION, read_evaluation

MOST_ENVIRONMENT = 2**20
MOST_IMAGE = 32 * 2**20
MOST_SOURCES = 20  # that are named
MOST_DATA = 2**20

PARTS = {
    "recipe.yaml": "the resolved recipe",
    "environment.json": "machine and versions",
    "metrics.jsonl": "loss, learning rate and diagnostics",
    "timings.jsonl": "images/s and data wait",
    "views.png": "views of training images",
    "evaluation.json": "scores on test",
}


@dataclass(frozen=True)
class RunRecord:
    """One run: `metrics` and `timings` hold a series {steps, values} for each numeric key; `remarks` names what is missing.

    `data` has an entry for each source, if they are recorded.
    """

    folder: Path
    name: str
    recipe_text: str = ""
    recipe: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    metrics: dict[str, Series] = field(default_factory=dict)
    timings: dict[str, Series] = field(default_factory=dict)
    views_png: bytes | None = None
    evaluation: dict = field(default_factory=dict)
    data: list[dict] = field(default_factory=list)
    remarks: tuple[str, ...] = ()
    skipped: SkippedFiles = field(default_factory=SkippedFiles)

    @property
    def title(self) -> str:
        """The recipe in a few words: its own name, or method, backbone and data. Of an evaluation, the data sets."""
        if self.is_evaluation:
            datasets = dict.fromkeys(row["dataset"] for row in self.evaluation.get("rows", []))
            return f"{len(self.networks)} networks evaluated on {', '.join(list(datasets)[:MOST_SOURCES])}"
        if isinstance(self.recipe.get("name"), str):
            return self.recipe["name"]
        data = " + ".join(source if share is None else f"{share:.0%} {source}" for source, share in self.sources)
        words = (_at(self.recipe, "method", "name"), _at(self.recipe, "model", "backbone"), data)
        return " · ".join(str(word) for word in words if word) or self.name

    @property
    def is_evaluation(self) -> bool:
        """Whether this is no run, but a folder of `wildfern evaluate --out`."""
        return not self.recipe_text and not self.metrics and bool(self.evaluation.get("rows"))

    @property
    def networks(self) -> list[str]:
        """The names of what was evaluated."""
        return list(dict.fromkeys(row["backbone"] for row in self.evaluation.get("rows", [])))

    @property
    def sources(self) -> list[tuple[str, float | None]]:
        """The sources of the training images, each with its share of them; None for a single one."""
        data = self.recipe.get("data")
        entries = [data] if isinstance(data, dict) else data[:MOST_SOURCES] if isinstance(data, list) else []
        found = [(str(_at(entry, "source") or entry), _at(entry, "weight")) for entry in entries]
        weights = [1.0 if weight is None else weight for _, weight in found]
        known = all(isinstance(w, int | float) and not isinstance(w, bool) and 0 <= w < 1e9 for w in weights)
        total = sum(weights) if known else 0.0
        if len(found) < 2 or total <= 0:
            return [(source, None) for source, _ in found]
        return [(source, weight / total) for (source, _), weight in zip(found, weights, strict=True)]


def read_run(folder: Path | str, whole: bool = True) -> RunRecord:
    """Read a run folder, or that of an evaluation alone.

    Missing or broken parts become remarks, and so do scores of another backbone than the present one. Unless `whole`,
    `metrics` and `timings` have only the last lines of their files, for the last step and its values.

    Nothing outside the folder is read, and no link in it is followed. Raises ValueError when the folder holds no run at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    is_run = any(os.path.lexists(folder / name) for name in ("recipe.yaml", "metrics.jsonl"))
    if not is_run and not os.path.lexists(folder / EVALUATION):
        raise ValueError(f"{folder} is not a run folder: it has neither recipe.yaml nor metrics.jsonl")
    remarks = [f"no {name} ({what})" for name, what in PARTS.items() if is_run and not os.path.lexists(folder / name)]
    evaluation, faults = read_evaluation(folder)
    remarks += [f"{EVALUATION}: {fault}" for fault in faults]
    if evaluation.get("backbone_sha256") is not None and (
        remark := _other_backbone(folder, evaluation["backbone_sha256"])
    ):
        remarks.append(remark)
        evaluation = {}
    recipe_text, recipe = _recipe(folder, remarks)
    return RunRecord(
        folder=folder,
        name=folder.resolve().name,
        recipe_text=recipe_text,
        recipe=recipe,
        environment=_environment(folder, remarks),
        metrics=read_series(folder / "metrics.jsonl", remarks, whole),
        timings=read_series(folder / "timings.jsonl", remarks, whole),
        views_png=_views(folder, remarks),
        evaluation=evaluation,
        data=_data(folder, remarks),
        skipped=read_skipped(folder / "skipped.jsonl", remarks),
        remarks=tuple(remarks),
    )


@contextmanager
def _remarked(name: str, remarks: list[str]) -> Iterator[None]:
    """Turn what is wrong with a file into a remark; a missing file has its own."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        remarks.append(f"{name} cannot be read: {error.strerror or error}")
    except ValueError as error:
        remarks.append(f"{name} cannot be read: {error}")


def _recipe(folder: Path, remarks: list[str]) -> tuple[str, dict]:
    text, recipe = "", {}
    with _remarked("recipe.yaml", remarks):
        content = read_bytes(folder / "recipe.yaml", MOST_YAML)
        text = content.decode("utf-8", "replace")
        found = parse_yaml(content.decode("utf-8-sig"))
        if not isinstance(found, dict):
            raise ValueError("it must be a mapping of sections")
        recipe = found
    return text, recipe


def _environment(folder: Path, remarks: list[str]) -> dict:
    with _remarked("environment.json", remarks):
        found = read_json(folder / "environment.json", MOST_ENVIRONMENT)
        if not isinstance(found, dict):
            raise ValueError("it must be a mapping")
        return found
    return {}


def _data(folder: Path, remarks: list[str]) -> list[dict]:
    """What `data.json` records of each source; nothing for runs of versions that did not write it."""
    with _remarked("data.json", remarks):
        found = read_json(folder / "data.json", MOST_DATA)
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise ValueError("it must be a list of a mapping for each source")
        return found
    return []


def _views(folder: Path, remarks: list[str]) -> bytes | None:
    with _remarked("views.png", remarks):
        content = read_bytes(folder / "views.png", MOST_IMAGE)
        check_png(content)
        return content
    return None


def _other_backbone(folder: Path, sha256: str) -> str | None:
    """A remark if `backbone.safetensors` is not the one that was scored; None if it is, or is missing."""
    try:
        with open_reading(folder / "backbone.safetensors") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        return (
            f"backbone.safetensors cannot be read ({error.strerror or error}), so that the scores in {EVALUATION}, which may be "
            "of another one, are left out"
        )
    if found == sha256:
        return None
    return "evaluation.json has scores of an earlier backbone of this run, which are left out: evaluate it again"


def _at(tree, *path: str):
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
