"""The folder of a run: choose it, write its files, read the recipe back."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from wildfern.bounded_json import read_json
from wildfern.files import (
    UnsafeFile,
    check_folder,
    check_replaceable,
    is_regular,
    open_appending,
    open_reading,
    remove_partial_files,
    write_text,
)
from wildfern.launch.components import components
from wildfern.launch.errors import RunError
from wildfern.launch.kept_aside import kept_aside
from wildfern.launch.output_paths import APPENDED, REPLACED, is_run, written_path
from wildfern.launch.recorded_plugins import changed_plugins, check_registered, copy_plugins, describe_plugins
from wildfern.launch.run_id import is_run_id, new_run_id
from wildfern.launch.run_weights import RunWeights, refused
from wildfern.launch.skipped_record import SkippedRecord
from wildfern.recipes import Recipe, load_recipe
from wildfern.ssl.evaluation.run_record import MOST_ENVIRONMENT
from wildfern.ssl.models.networks import unknown_network
from wildfern.ssl.tracking import environment
from wildfern.ssl.training.checkpoints import checkpoint_steps

SUB_FOLDERS = ("checkpoints", "evaluation_details", "plugins", "wandb")


class RunFolder(RunWeights):
    """`recipe.yaml`, `environment.json`, `metrics.jsonl`, `timings.jsonl`, `views.png`, `checkpoints/`,
    `backbone.safetensors`, `evaluation.json`, `report.html` and, if files were unreadable, `skipped.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._skipped = SkippedRecord(path / "skipped.jsonl")

    @classmethod
    def for_writing(cls, path: Path | None, recipe_name: str, resume: bool) -> "RunFolder":
        """The folder of a new run (default: `runs/NAME-DATE`), or of one to resume. Raises RunError."""
        if path is not None:
            path = written_path(path)
        else:
            if resume:
                raise RunError("--resume requires --run DIR")
            path = new_folder(recipe_name)
        if not resume:
            cls(path).check_new()
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise RunError(
                f"cannot write the run folder {path}: {there} is {'read-only' if there.is_dir() else 'a file'}"
            )
        cls(path).check_files()
        return cls(path)

    @classmethod
    def for_reading(cls, path: str | Path) -> "RunFolder":
        """The folder of a run that exists. Raises RunError for anything else."""
        if not isinstance(path, str | Path):
            raise RunError(f"the path of a run folder must be a text, got {type(path).__name__}")
        path = Path(os.path.expanduser(path))
        recipe = path / "recipe.yaml"
        if is_regular(recipe):
            return cls(path)
        if os.path.lexists(recipe):
            raise RunError(refused(recipe))
        if path.is_file():
            if is_run(path.parent):
                raise RunError(f"{path} is a file in a run folder: name the folder {path.parent}")
            raise RunError(
                f"{path} is a file, not a run folder; to evaluate a file of weights: --backbone NAME --weights {path}"
            )
        if not path.exists() and unknown_network(str(path)) is None:
            raise RunError(f"there is no run folder {path}; to evaluate a network of this name: --backbone {path}")
        if not path.exists():
            raise RunError(f"there is no run folder {path}")
        raise RunError(f"{path} is not a run folder: it has no recipe.yaml")

    def is_writable(self) -> bool:
        """Whether files can be written here; not on a read-only file system, even by root."""
        return os.access(self.path, os.W_OK)

    def check_new(self) -> None:
        """Raise RunError if the folder holds a run."""
        saved = self.has_checkpoints()
        if os.path.lexists(self.path / "recipe.yaml"):
            start = "" if saved else " (it has no checkpoint, so it starts at step 0)"
            raise RunError(f"{self.path} already holds a run: add --resume{start}, or choose another --run")
        if saved:
            raise RunError(
                f"{self.path} holds checkpoints of a run, but no recipe.yaml: add --resume and repeat the recipe they were "
                "trained with, or choose another --run"
            )

    def has_checkpoints(self) -> bool:
        """Whether there are checkpoints, complete or damaged."""
        return bool(checkpoint_steps(self.path / "checkpoints"))

    def check_files(self) -> None:
        """Raise RunError for links, FIFOs, devices and folders in place of what a run writes, before anything is written.

        A link in place of a file that is written as a whole passes: it is replaced by the file.
        """
        try:
            for name in SUB_FOLDERS:
                check_folder(self.path / name)
            for name in REPLACED:
                check_replaceable(self.path / name)
            for name in APPENDED:
                if os.path.lexists(self.path / name):
                    # metrics.jsonl and timings.jsonl may be hard links: then they become new files when a run resumes.
                    (open_appending if name == "nonfinite.jsonl" else open_reading)(self.path / name).close()
        except UnsafeFile as error:
            raise RunError(f"{error.filename} {error.strerror}") from error

    def recipe(
        self,
        overrides: Sequence[str] = (),
        plugins: Sequence[str] = (),
        needs: Sequence[str] = ("views",),
    ) -> Recipe:
        """The resolved recipe of the run; its training data may be gone.

        Runs `plugins`, and nothing that is in the folder. Components of plugins that are not loaded keep their arguments
        unchecked, except in the sections `needs`: there RunError says which plugin is missing.
        """
        file = self.path / "recipe.yaml"
        if os.path.lexists(file) and not is_regular(file):
            raise RunError(refused(file))
        recipe = load_recipe(file, overrides, components(), plugins=plugins, trusted=False)
        check_registered(recipe, needs, self.path)
        return recipe

    def recipe_if_started(self) -> Recipe | None:
        """The recipe of the run; None before its start."""
        return self.recipe() if os.path.lexists(self.path / "recipe.yaml") else None

    def begin(
        self, recipe: Recipe, weights: dict[str, Any] | None = None, run_id: str | None = None, processes: int = 1
    ) -> None:
        """Make the folder and write recipe and environment.

        `weights` describes those that training starts from; `run_id` is that of the run's checkpoints (default: a new one);
        `processes` of all hosts train.
        Call it while no other process writes to the folder: it removes what killed processes have left unfinished.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.path / "plugins"):
            remove_partial_files(folder)
        copies = copy_plugins(recipe, self.path)
        write_text(self.path / "recipe.yaml", recipe.model_copy(update={"plugins": list(copies.values())}).as_yaml())
        described = {
            "run": run_id or new_run_id(),
            "processes": processes,
            **environment(),
            "plugins": describe_plugins(copies),
        }
        if weights or (weights := self.start_weights()):
            described["weights"] = weights
        self.write_json("environment.json", described)

    def run_id(self) -> str | None:
        """The id of the run, which its checkpoints carry; None before its start, and for runs of earlier versions."""
        try:
            found = read_json(self.path / "environment.json", MOST_ENVIRONMENT)
        except (OSError, ValueError):
            return None
        found = found.get("run") if isinstance(found, dict) else None
        return found if is_run_id(found) else None

    def start_weights(self) -> dict[str, Any]:
        """What `environment.json` says about the weights that training started from; empty without any."""
        try:
            described = self._environment().get("weights", {})
        except (OSError, ValueError):
            return {}
        return described if isinstance(described, dict) else {}

    def _environment(self) -> dict[str, Any]:
        """The content of `environment.json`. Raises OSError or ValueError for a damaged one."""
        found = read_json(self.path / "environment.json", MOST_ENVIRONMENT)
        if not isinstance(found, dict):
            raise ValueError("it must be a mapping")
        for name, kind, words in (("weights", dict, "a mapping"), ("plugins", list, "a list")):
            if not isinstance(found.get(name, kind()), kind):
                raise ValueError(f"{name} must be {words}")
        if not isinstance(found.get("weights", {}).get("sha256", ""), str):
            raise ValueError("weights.sha256 must be a text")
        return found

    def keep_damaged_environment(self) -> str | None:
        """Set aside an `environment.json` that cannot be read, before it is written anew; a message if it was."""
        try:
            self._environment()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            return kept_aside(self.path / "environment.json", error)
        return None

    def changed_plugins(self, recipe: Recipe) -> list[str]:
        """A message for each plugin file of the recipe that has changed since the run was started."""
        return changed_plugins(recipe, self.path)

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file atomically."""
        write_text(self.path / name, json.dumps(value, indent=2) + "\n")

    def note_skipped(self, skipped: Mapping[str, str], say: Callable[[str], None] = lambda message: None) -> None:
        """Add to `skipped.jsonl` the files that could not be read, each with the reason; earlier rows stay.

        A damaged file is set aside, with a message, if it is written anew; its other rows stay.
        """
        self._skipped.note(skipped, say)

    def add_lines(self, name: str, rows: list[dict]) -> None:
        """Append to a JSON-lines file and sync it to the disk."""
        lines = memoryview("".join(json.dumps(row) + "\n" for row in rows).encode())
        with open_appending(self.path / name) as file:
            before, written = os.fstat(file.fileno()).st_size, 0
            try:
                while written < len(lines):  # a write may be partial; the next attempt raises the reason
                    written += file.write(lines[written:])
                os.fsync(file.fileno())
            except OSError as error:
                with suppress(OSError):
                    file.truncate(before)
                raise OSError(error.errno, error.strerror, str(self.path / name)) from error


def new_folder(recipe_name: str) -> Path:
    """A path that does not exist yet: `runs/NAME-DATE`, NAME of the recipe."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(recipe_name).stem)
    base = Path("runs") / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    return next(p for n in range(1000) if not (p := base.with_name(base.name + (f"-{n}" if n else ""))).exists())
