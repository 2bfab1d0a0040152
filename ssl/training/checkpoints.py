"""Checkpoints that are either whole or not there: written beside, sealed with checksums, then renamed."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from wildfern.ssl.training.checksums import CorruptCheckpoint, check, manifest, to_disk, write_manifest

Save = Callable[[Path], None]

PREFIX, UNFINISHED, DAMAGED = "step_", ".unfinished_", "damaged_"


class CheckpointError(ValueError):
    """A checkpoint that could not be written, or none that can be read; the message says why and what to do."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that is on the disk: its step, and the seconds that took beside the training."""

    step: int
    seconds: float


class CheckpointStore:
    """The folder `checkpoints/` of a run: `step_00001000/` holds what training needs to go on after 1 000 steps.

    The newest `keep` stay, and for good those of steps that `keep_every` divides. Every rank makes a store over the same
    folder; `lead` says which one reads and writes there, `any_rank` says whether a flag is set on one of them, and `all_ranks`
    returns once all have called it, however long one of them may be writing.

    Training stands still while its state is copied. Writing the copy, checksums, the way to the disk, renaming and deleting
    happen meanwhile, on a thread of the leading rank that touches neither weights nor the process group.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        keep_every: int | None = None,
        *,
        lead: bool = True,
        any_rank: Callable[[bool], bool] = lambda flag: flag,
        all_ranks: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.lead, self.any_rank, self.all_ranks = lead, any_rank, all_ranks
        self._writing: threading.Thread | None = None
        self._step, self._seconds = 0, 0.0
        self._error: Exception | None = None

    def steps(self) -> list[int]:
        """Steps of the published checkpoints, whole or damaged, oldest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:  # the first one makes it
            return []
        found = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
        return sorted(int(name) for name in found if name.isdigit())

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is."""
        return self.folder / f"{PREFIX}{step:08d}"

    def newest(self) -> tuple[int | None, list[str]]:
        """Step of the newest whole checkpoint, None where there is none at all, and words on damaged newer ones.

        Those are renamed to `damaged_…`, out of the way. Call it on the leading rank. Raises CheckpointError, everything left as
        it is, when there are checkpoints and all of them are damaged, or when they cannot be read.
        """
        try:
            step, faults = self._newest_whole()
        except OSError as error:
            raise CheckpointError(
                f"cannot read {error.filename or self.folder}: {error.strerror or error}. That does not make a checkpoint "
                "damaged, and all is left as it is: mend the disk, the network or the permissions, and go on with --resume"
            ) from error
        return step, [self._set_aside(*damaged) for damaged in faults.items()]

    def _newest_whole(self) -> tuple[int | None, dict[int, CorruptCheckpoint]]:
        faults: dict[int, CorruptCheckpoint] = {}
        for step in reversed(self.steps()):
            try:
                if check(self.path(step)).get("step") != step:
                    raise CorruptCheckpoint("it is a checkpoint of another step")
            except CorruptCheckpoint as fault:
                faults[step] = fault
            else:
                return step, faults
        if faults:
            listed = "; ".join(f"{self.path(step).name}: {fault}" for step, fault in faults.items())
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged ({listed}). Put back a copy of one of them, or start anew in "
                "another run folder"
            )
        return None, {}

    def metadata(self, step: int) -> dict[str, object]:
        """What was noted with a checkpoint that `newest` has found whole."""
        return manifest(self.path(step))

    def write(self, step: int, copy: Callable[[], Save], metadata: dict[str, object]) -> Written | None:
        """Publish a new checkpoint: `copy()` copies the state, on every rank, and returns what writes the copy into a folder.

        That is called later, on the leading rank alone. Waits for the checkpoint before, as `wait` does, and returns the same.
        """
        before = self.wait()
        save = copy()
        if self.lead:
            self._step = step
            self._writing = threading.Thread(target=self._publish, args=(step, save, metadata), name="checkpoint")
            self._writing.start()
        return before

    @property
    def failed(self) -> bool:
        """Whether `wait` on this rank would raise; may be asked at any time."""
        return self._error is not None

    def wait(self) -> Written | None:
        """Return once the checkpoint that is being written is on the disk; None where none was. Call it on every rank.

        Raises CheckpointError on every rank when it could not be written; the earlier ones are whole then.
        """
        thread, self._writing = self._writing, None
        if thread is not None:
            thread.join()
        self.all_ranks()  # `any_rank` alone may lose patience with the rank that writes
        if self.any_rank(self.failed):
            if self._error is None or isinstance(self._error, OSError | SafetensorError):
                raise CheckpointError(self._told()) from self._error
            raise self._error  # no fault of the disk
        return None if thread is None else Written(self._step, self._seconds)

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *exception: object) -> None:
        """Let the thread finish, whatever ended the training."""
        if self._writing is not None:
            self._writing.join()

    def _publish(self, step: int, save: Save, metadata: dict[str, object]) -> None:
        began = time.perf_counter()
        unfinished, final = self.folder / f"{UNFINISHED}{step:08d}", self.path(step)
        try:
            for rest in self.folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(rest)
            unfinished.mkdir(parents=True)
            save(unfinished)
            write_manifest(unfinished, {"step": step, **metadata})
            if final.exists():
                self._remove(final)
            os.replace(unfinished, final)
            to_disk(self.folder)
            for old in self.steps()[: -self.keep]:
                if self.keep_every is None or old % self.keep_every:
                    self._remove(self.path(old))
            self._seconds = time.perf_counter() - began
        except Exception as error:  # raised by `wait`, on the thread that trains
            shutil.rmtree(unfinished, ignore_errors=True)
            self._error = error

    def _remove(self, checkpoint: Path) -> None:
        """In two moves, so that nothing half deleted ever looks like a checkpoint."""
        doomed = self.folder / f"{UNFINISHED}{checkpoint.name}"
        os.replace(checkpoint, doomed)
        shutil.rmtree(doomed)

    def _set_aside(self, step: int, fault: CorruptCheckpoint) -> str:
        path = self.path(step)
        names = (f"{DAMAGED}{path.name}" + (f"-{n}" if n else "") for n in range(len(os.listdir(self.folder)) + 1))
        aside = next(self.folder / name for name in names if not (self.folder / name).exists())
        os.replace(path, aside)
        return f"{path} is damaged: {fault}; it is now {aside.name}, and the checkpoint before it is used"

    def _told(self) -> str:
        if self._error is None:
            return "the first process could not write a checkpoint: it says why"
        if isinstance(self._error, OSError):
            why = f"{self._error.filename or self.folder}: {self._error.strerror or self._error}"
        else:
            why = f"{self.folder}: {self._error}"
        whole = self.steps()
        if self._step in whole:
            return f"the checkpoint after step {self._step} is whole, but older ones could not be deleted ({why})"
        rest = f"the one after step {whole[-1]} is whole" if whole else "there is none before it"
        return f"the checkpoint after step {self._step} could not be written ({why}); {rest}. Mend that and go on with --resume"
