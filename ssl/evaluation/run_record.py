"""Read a run folder back: whatever is there, and the names of what is not."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import yaml

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
    """One run: `metrics` and `timings` hold a series {steps, values} for each numeric key; `remarks` names what is missing."""

    folder: Path
    name: str
    recipe_text: str = ""
    recipe: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    metrics: dict[str, "Series"] = field(default_factory=dict)
    timings: dict[str, "Series"] = field(default_factory=dict)
    views_png: bytes | None = None
    evaluation: dict = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The recipe in a few words: its own name, or method, backbone and data."""
        if isinstance(self.recipe.get("name"), str):
            return self.recipe["name"]
        data = _at(self.recipe, "data", "source")
        if isinstance(data, list):
            data = " + ".join(str(_at(part, "source") or part) for part in data)
        words = (_at(self.recipe, "method", "name"), _at(self.recipe, "model", "backbone"), data)
        return " · ".join(str(word) for word in words if word) or self.name


@dataclass
class Series:
    """The finite values of one key over the steps."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_run(folder: Path | str) -> RunRecord:
    """Read a run folder. Missing or broken parts become remarks, and so do scores of another backbone than the present one.

    Raises ValueError when the folder holds no run at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    if not any((folder / name).is_file() for name in ("recipe.yaml", "metrics.jsonl")):
        raise ValueError(f"{folder} is not a run folder: it has neither recipe.yaml nor metrics.jsonl")
    remarks = [f"no {name} ({what})" for name, what in PARTS.items() if not (folder / name).is_file()]

    def text(name: str) -> str:
        path = folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def mapping(name: str, parse) -> dict:
        try:
            parsed = parse(text(name) or "{}")
        except (ValueError, yaml.YAMLError):
            remarks.append(f"{name} cannot be read")
            return {}
        if name == "evaluation.json" and isinstance(parsed, list):
            return {"rows": parsed}
        return parsed if isinstance(parsed, dict) else {}

    evaluation = mapping("evaluation.json", json.loads)
    backbone = folder / "backbone.safetensors"
    scored = evaluation.get("backbone_sha256")
    if scored is not None and backbone.is_file() and scored != _sha256(backbone):
        remarks.append(
            "evaluation.json has scores of an earlier backbone of this run, which are left out: evaluate it again"
        )
        evaluation = {}
    views = folder / "views.png"
    return RunRecord(
        folder=folder,
        name=folder.resolve().name,
        recipe_text=text("recipe.yaml"),
        recipe=mapping("recipe.yaml", yaml.safe_load),
        environment=mapping("environment.json", json.loads),
        metrics=_series("metrics.jsonl", text("metrics.jsonl"), remarks),
        timings=_series("timings.jsonl", text("timings.jsonl"), remarks),
        views_png=views.read_bytes() if views.is_file() else None,
        evaluation=evaluation,
        remarks=tuple(remarks),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _series(name: str, text: str, remarks: list[str]) -> dict[str, Series]:
    """Numeric keys of JSON lines, in order of first appearance; later lines for the same step replace earlier ones."""
    series: dict[str, Series] = {}
    broken = not_finite = 0
    at_step: dict[float, dict] = {}
    for line in filter(str.strip, text.splitlines()):
        try:
            entry = json.loads(line)
            at_step.setdefault(float(entry["step"]), {}).update(entry)
        except (ValueError, KeyError, TypeError):
            broken += 1
    for step, entry in sorted(at_step.items()):
        for key, value in entry.items():
            if key == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                not_finite += 1
                continue
            one = series.setdefault(key, Series())
            one.steps.append(step)
            one.values.append(float(value))
    if broken:
        remarks.append(f"{name}: {broken} unreadable line{'s' * (broken > 1)} left out")
    if not_finite:
        remarks.append(f"{name}: {not_finite} value{'s' * (not_finite > 1)} NaN or infinite")
    return series


def _at(tree, *path: str):
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
