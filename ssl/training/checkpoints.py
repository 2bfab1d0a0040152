"""Checkpoints that are either whole or not there: written beside, then renamed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

PREFIX, UNFINISHED = "step_", ".unfinished_"


class CheckpointStore:
    """The folder `checkpoints/` of a run: `step_00001000/` holds what training needs to go on after 1 000 steps.

    Every rank makes one over the same folder; `lead` says which one creates, renames and deletes.
    """

    def __init__(self, folder: Path, keep: int, lead: bool = True, barrier: Callable[[], None] = lambda: None) -> None:
        self.folder, self.keep, self.lead, self.barrier = folder, keep, lead, barrier
        if lead:
            for rest in folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(rest)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        found = [
            p.name.removeprefix(PREFIX) for p in self.folder.glob(f"{PREFIX}*") if (p / "checkpoint.json").is_file()
        ]
        return sorted(int(name) for name in found if name.isdigit())

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is."""
        return self.folder / f"{PREFIX}{step:08d}"

    def write(self, step: int, save: Callable[[Path], None], facts: dict) -> Path:
        """Have `save(folder)` fill a new checkpoint on every rank, then publish it and delete the oldest beyond `keep`."""
        unfinished, final = self.folder / f"{UNFINISHED}{step:08d}", self.path(step)
        if self.lead:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self.barrier()
        save(unfinished)
        self.barrier()
        if self.lead:
            (unfinished / "checkpoint.json").write_text(json.dumps({"step": step, **facts}, indent=2) + "\n")
            for file in unfinished.rglob("*"):
                _to_disk(file)
            if final.exists():
                shutil.rmtree(final)
            os.replace(unfinished, final)
            _to_disk(self.folder)
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.path(old))
        self.barrier()
        return final

    def facts(self, step: int) -> dict:
        """What was noted with a checkpoint."""
        return json.loads((self.path(step) / "checkpoint.json").read_text())


def _to_disk(path: Path) -> None:
    """fsync a file, or a folder where the system can."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
