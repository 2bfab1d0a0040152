"""Checkpoints that are complete or absent: written to a temporary folder, with checksums, then renamed."""

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
    """A checkpoint cannot be written, or none can be read; the message says why and what to do."""


@dataclass(frozen=True)
class Written:
    """A checkpoint on the disk: its step, and the seconds that writing it took in the background."""

    step: int
    seconds: float


class CheckpointStore:
    """The folder `checkpoints/` of a run: `step_00001000/` holds the state of training after 1 000 steps.

    The newest `keep` checkpoints are kept, and permanently those of steps that `keep_every` divides. Every rank makes a store
    for the same folder; `is_main` is True on the main rank, which reads and writes there, `any_rank` returns whether a flag is
    set on any rank, and `all_ranks` is a barrier without timeout, since the main rank may be writing.

    Training waits only while its state is copied. Writing the copy, checksums, fsync, renaming and deleting run on a thread of
    the main rank, which uses neither weights nor the process group.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        keep_every: int | None = None,
        *,
        is_main: bool = True,
        any_rank: Callable[[bool], bool] = lambda flag: flag,
        all_ranks: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.is_main, self.any_rank, self.all_ranks = is_main, any_rank, all_ranks
        self._writing: threading.Thread | None = None
        self._step, self._seconds = 0, 0.0
        self._error: Exception | None = None

    def steps(self) -> list[int]:
        """Steps of the checkpoints in the folder, complete or damaged, oldest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:  # the first checkpoint creates the folder
            return []
        found = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
        return sorted(int(name) for name in found if name.isdigit())

    def path(self, step: int) -> Path:
        """Path of the checkpoint after `step` steps."""
        return self.folder / f"{PREFIX}{step:08d}"

    def newest(self) -> tuple[int | None, list[str]]:
        """Step of the newest undamaged checkpoint (None without any checkpoint), and a message for each damaged newer one.

        Damaged ones are renamed to `damaged_…`. Call it on the main rank only. Raises CheckpointError, without changing
        anything, when all checkpoints are damaged or when they cannot be read.
        """
        try:
            step, faults = self._newest_whole()
        except OSError as error:
            raise CheckpointError(
                f"cannot read {error.filename or self.folder}: {error.strerror or error}. Nothing was changed. Fix the disk, the "
                "network or the permissions, then --resume"
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
                f"every checkpoint in {self.folder} is damaged ({listed}). Restore one from a backup, or start a new run in "
                "another folder"
            )
        return None, {}

    def metadata(self, step: int) -> dict[str, object]:
        """The metadata of a checkpoint that `newest` has returned."""
        return manifest(self.path(step))

    def write(self, step: int, copy: Callable[[], Save], metadata: dict[str, object]) -> Written | None:
        """Start a checkpoint: `copy()` copies the state, on every rank, and returns a function that writes it into a folder.

        That function runs later, on the main rank only. Waits for the previous checkpoint and returns what `wait` returns.
        """
        previous = self.wait()
        save = copy()
        if self.is_main:
            self._step = step
            self._writing = threading.Thread(target=self._publish, args=(step, save, metadata), name="checkpoint")
            self._writing.start()
        return previous

    @property
    def failed(self) -> bool:
        """Whether `wait` would raise on this rank; may be read at any time."""
        return self._error is not None

    def wait(self) -> Written | None:
        """Wait until the checkpoint that is being written is on the disk; returns None if there was none. Call it on every rank.

        Raises CheckpointError on every rank if it could not be written; earlier checkpoints are still complete.
        """
        thread, self._writing = self._writing, None
        if thread is not None:
            thread.join()
        self.all_ranks()  # without it `any_rank` may time out while the main rank writes
        if self.any_rank(self.failed):
            if self._error is None or isinstance(self._error, OSError | SafetensorError):
                raise CheckpointError(self._message()) from self._error
            raise self._error  # not a disk error
        return None if thread is None else Written(self._step, self._seconds)

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for the thread, also after an exception."""
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
        except Exception as error:  # raised by `wait`, in the training thread
            shutil.rmtree(unfinished, ignore_errors=True)
            self._error = error

    def _remove(self, checkpoint: Path) -> None:
        """Rename, then delete, so that a partly deleted folder is never taken for a checkpoint."""
        doomed = self.folder / f"{UNFINISHED}{checkpoint.name}"
        os.replace(checkpoint, doomed)
        shutil.rmtree(doomed)

    def _set_aside(self, step: int, fault: CorruptCheckpoint) -> str:
        path = self.path(step)
        names = (f"{DAMAGED}{path.name}" + (f"-{n}" if n else "") for n in range(len(os.listdir(self.folder)) + 1))
        aside = next(self.folder / name for name in names if not (self.folder / name).exists())
        os.replace(path, aside)
        return f"{path} is damaged: {fault}; it was renamed to {aside.name}, and the checkpoint before it is used"

    def _message(self) -> str:
        if self._error is None:
            return "rank 0 could not write a checkpoint; its message says why"
        if isinstance(self._error, OSError):
            why = f"{self._error.filename or self.folder}: {self._error.strerror or self._error}"
        else:
            why = f"{self.folder}: {self._error}"
        whole = self.steps()
        if self._step in whole:
            return f"the checkpoint after step {self._step} is complete, but older ones could not be deleted ({why})"
        rest = f"the one after step {whole[-1]} is complete" if whole else "there is no earlier one"
        return f"the checkpoint after step {self._step} could not be written ({why}); {rest}. Fix this, then --resume"
