"""`series.json`: the request of a series, and the state of each of its runs; read back to continue it."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wildfern.bounded_json import read_json
from wildfern.files import write_text
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import SERIES, is_run
from wildfern.launch.series_points import Run
from wildfern.recipes import Recipe

MOST_BYTES = 64 * 2**20
WAITING, DONE, FAILED, STOPPED = "waiting", "done", "failed", "stopped"
STATES = (WAITING, DONE, FAILED, STOPPED)
MOST_MESSAGE = 2_000  # characters that are kept of what a failed run said


@dataclass
class Entry:
    """A run of the series, the hash of its recipe, and how it ended; `message` is what a failed run said."""

    run: Run
    recipe_sha256: str
    state: str = WAITING
    message: str = ""

    def request(self) -> dict[str, Any]:
        """The part that stays: which run it is."""
        run = self.run
        return {
            "folder": run.name,
            "settings": run.point.settings,
            "seed": run.seed,
            "changes": run.overrides,
            "recipe_sha256": self.recipe_sha256,
        }


class SeriesRecord:
    """The runs of a series and `series.json` in its folder."""

    def __init__(self, folder: Path, recipe: str, plugins: Sequence[str], entries: list[Entry]) -> None:
        self.folder, self.recipe, self.plugins, self.entries = folder, recipe, list(plugins), entries

    def write(self) -> None:
        """Write `series.json` as a whole."""
        runs = [{**one.request(), "state": one.state, "message": one.message} for one in self.entries]
        written = {"wildfern": version("wildfern"), "recipe": self.recipe, "plugins": self.plugins, "runs": runs}
        write_text(self.folder / SERIES, json.dumps(written, indent=2) + "\n")

    def check_new(self) -> None:
        """Raise RunError if the folder holds anything but a lock."""
        if os.path.lexists(self.folder / SERIES):
            raise RunError(f"{self.folder} already holds a series: add --resume, or choose another --run")
        if is_run(self.folder):
            raise RunError(f"{self.folder} holds a run, not a series: choose another --run")
        there = [path.name for path in self.folder.iterdir() if path.name != ".lock"] if self.folder.is_dir() else []
        if there:
            raise RunError(f"{self.folder} is not empty (it has {sorted(there)[0]}): choose another --run")

    def take_states(self) -> bool:
        """Take how the runs ended from `series.json`; False if there is none. RunError for another request, or a damaged file."""
        try:
            stored = _checked(read_json(self.folder / SERIES, MOST_BYTES))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunError(
                f"{self.folder / SERIES} is damaged: {reason}. Its runs are whole: continue each with wildfern pretrain … "
                "--resume, or start a new series"
            ) from error
        if differences := self._differences(stored):
            raise RunError(
                f"{self.folder} is a series of another request: {differences}. Repeat the command that started it with "
                "--resume, or choose another --run"
            )
        for entry, before in zip(self.entries, stored["runs"], strict=True):
            entry.state, entry.message = before["state"], before["message"]
        return True

    def _differences(self, stored: dict[str, Any]) -> str:
        """What differs from the stored request, in words; empty if nothing does."""
        if stored["recipe"] != self.recipe:
            return f"it was started with the recipe {stored['recipe']!r}, not {self.recipe!r}"
        if stored["plugins"] != self.plugins:
            return f"it was started with --plugin {stored['plugins']}, not {self.plugins}"
        then = {row["folder"]: row for row in stored["runs"]}
        now = {entry.run.name: entry.request() for entry in self.entries}
        for words, missing in (("new", now.keys() - then.keys()), ("missing now", then.keys() - now.keys())):
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                return f"it has {len(then)} runs, and this request {len(now)}; {words}: {sorted(missing)[0]}{more}"
        for row, entry in zip(stored["runs"], self.entries, strict=True):
            name, asked = row["folder"], entry.request()
            if name != asked["folder"]:
                return "its runs are in another order"
            if row["changes"] != asked["changes"]:
                return f"{name} had the changes {' '.join(row['changes'])}, and now {' '.join(asked['changes'])}"
            if row["recipe_sha256"] != asked["recipe_sha256"]:
                return (
                    f"the recipe of {name} has changed since (the recipe file, one that it extends, a plugin's settings, or "
                    f"wildfern, which was {stored['wildfern']})"
                )
        return ""


def recipe_sha256(recipe: Recipe) -> str:
    """The hash of a resolved recipe."""
    return hashlib.sha256(recipe.as_yaml().encode()).hexdigest()


def _checked(stored: Any) -> dict[str, Any]:
    """Raise ValueError unless it is what `SeriesRecord.write` writes."""
    kinds = {"wildfern": str, "recipe": str, "plugins": list, "runs": list}
    if not isinstance(stored, dict) or not all(isinstance(stored.get(key), kind) for key, kind in kinds.items()):
        raise ValueError(f"it must be a mapping with {', '.join(kinds)}")
    for number, row in enumerate(stored["runs"]):
        texts = ("folder", "recipe_sha256", "state", "message")
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in texts):
            raise ValueError(f"runs.{number} must be a mapping with the texts {', '.join(texts)}")
        changes = row.get("changes")
        if row["state"] not in STATES or not (isinstance(changes, list) and all(isinstance(c, str) for c in changes)):
            raise ValueError(f"runs.{number} has no valid state or changes")
    return stored
