"""A run folder: where it is, whether it may be written, and what is read back from it."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.launch.components import components
from wildfern.recipes import Recipe, load_recipe
from wildfern.ssl.data import DataError
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import environment, read_records


class RunError(ValueError):
    """A run folder that cannot be used, said in the user's words."""


class RunFolder:
    """`recipe.yaml`, `environment.json`, `metrics.jsonl`, `timings.jsonl`, `views.png`, `checkpoints/`,
    `backbone.safetensors`, `evaluation.json`, `report.html` and, where files were unusable, `skipped.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def for_writing(cls, path: Path | None, recipe_name: str, resume: bool) -> "RunFolder":
        """The folder of a new run (`runs/NAME-DATE` unless `path` says), or of one to go on with."""
        if path is None:
            if resume:
                raise RunError("--resume wants --run DIR: the run to go on with")
            stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(recipe_name).stem)
            base = Path("runs") / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
            path = next(
                p for n in range(1000) if not (p := base.with_name(base.name + (f"-{n}" if n else ""))).exists()
            )
        if not resume:
            cls(path).check_new()
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise RunError(
                f"cannot write the run folder {path}: {there} is {'read-only' if there.is_dir() else 'a file'}"
            )
        return cls(path)

    @classmethod
    def for_reading(cls, path: Path) -> "RunFolder":
        """The folder of a run that exists."""
        if not (path / "recipe.yaml").is_file():
            raise RunError(f"{path} is no run folder: there is no recipe.yaml in it")
        return cls(path)

    def check_new(self) -> None:
        """Refuse a folder in which a run was begun."""
        if (self.path / "recipe.yaml").exists():
            raise RunError(f"{self.path} holds a run already: go on with --resume, or choose another --run")
        if any(self.path.glob("checkpoints/step_*")):
            raise RunError(
                f"{self.path} holds checkpoints of a run, but no recipe.yaml: go on with --resume and the recipe they were "
                "trained with, or choose another --run"
            )

    def recipe(self) -> Recipe:
        """The resolved recipe of the run; its training data need not be here any more."""
        return load_recipe(self.path / "recipe.yaml", [], components())

    def begin(self, recipe: Recipe) -> None:
        """Make the folder and write down what runs and where."""
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.path / "recipe.yaml", recipe.as_yaml())
        _replace(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")

    def write_json(self, name: str, value: object) -> None:
        """A JSON file, whole or not at all."""
        _replace(self.path / name, json.dumps(value, indent=2) + "\n")

    def note_skipped(self, skipped: Mapping[str, str]) -> None:
        """`skipped.jsonl`: files that could not be used, each with the reason; what stands there from before a resume stays."""
        file = self.path / "skipped.jsonl"
        before = read_records(file) if file.is_file() else []
        reasons = {**skipped, **{row["file"]: row["reason"] for row in before}}
        if len(reasons) > len(before):
            rows = [{"file": name, "reason": why} for name, why in sorted(reasons.items())]
            _replace(file, "".join(json.dumps(row) + "\n" for row in rows))

    def add_lines(self, name: str, rows: list[dict]) -> None:
        """Add to a JSON-lines file, at once on the disk."""
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Where to write a file of this name inside the block; it takes its place at the end, so it is whole or not there."""
        beside = self.path / f".{name}"
        yield beside
        os.replace(beside, self.path / name)

    def write_backbone(self, state: dict[str, Tensor]) -> None:
        """`backbone.safetensors`, with the names that timm gives its weights."""
        beside = self.path / ".backbone.safetensors"
        try:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, beside)
        except SafetensorError as error:  # it tells of a full disk in words alone
            beside.unlink(missing_ok=True)
            raise RunError(
                f"cannot write {self.path / 'backbone.safetensors'}: {error}. Finished checkpoints are whole: make room, then go "
                f"on with --run {self.path} --resume"
            ) from error
        beside.chmod(self.path.stat().st_mode & 0o666)  # safetensors leaves it to its owner alone
        os.replace(beside, self.path / "backbone.safetensors")

    def backbone(self, trained: bool = True) -> Backbone:
        """The run's backbone in eval mode: trained, or as it was before training (the baseline)."""
        recipe = self.recipe()
        if not trained:
            return initial_backbone(recipe).eval()
        try:
            return recipe_backbone(recipe, str(self._weights())).eval()
        except RunError:
            raise
        except ValueError as error:
            raise RunError(f"{error}; resuming the run writes {self._weights()} again") from error

    def backbone_sha256(self) -> str:
        """The SHA-256 of `backbone.safetensors` as it is now, in hexadecimal."""
        with self._weights().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _weights(self) -> Path:
        weights = self.path / "backbone.safetensors"
        if not weights.is_file():
            raise RunError(f"{self.path} has no backbone.safetensors yet: its first checkpoint writes it")
        return weights


def load_backbone(source: str | Path, trained: bool = True) -> Backbone:
    """The backbone of the run folder `source` in eval mode; `trained=False`: as it was before training.

    Raises RunError for a folder that holds no run or no weights yet.
    """
    return RunFolder.for_reading(Path(source)).backbone(trained)


def initial_backbone(recipe: Recipe) -> Backbone:
    """The backbone as training starts from it: a pure function of the recipe and of the weights that it names."""
    return recipe_backbone(recipe, getattr(recipe.model, "weights", None))


def recipe_backbone(recipe: Recipe, weights: str | None = None) -> Backbone:
    """The recipe's network with `weights`, or as its seed draws it."""
    model = recipe.model
    stem = "cifar" if model.stem == "small" else model.stem  # small: its name in recipes before version 0.4
    with seeded(recipe.seed, "backbone"):
        return Backbone(model.backbone, weights, stem, **model.arguments)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """torch's generator set from (seed, purpose) inside the block and put back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(purpose, seed))
        yield


@contextmanager
def user_errors() -> Iterator[None]:
    """Components say in ValueErrors what the user asked for that cannot be: a message here, not a traceback."""
    try:
        yield
    except (RunError, DataError):
        raise
    except ValueError as error:
        raise RunError(str(error)) from error


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # after a power cut too, it is the old text or the new one
    os.replace(beside, path)
