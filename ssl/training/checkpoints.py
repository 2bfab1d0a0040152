"""Checkpoints that are complete or absent: written to a temporary folder, with checksums, then renamed."""

import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from errno import EFBIG, ENAMETOOLONG, ENOSPC
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from wildfern.files import UnsafeFile, check_folder
from wildfern.ssl.training.checkpoint_parts import Abandoned, announce_part, collected, wait_for_folder
from wildfern.ssl.training.checksums import CorruptCheckpoint, check, manifest, to_disk, write_manifest

Save = Callable[
    [Path], Path | None
]  # writes into a folder; returns the file that it has written, if it is one part of several

PREFIX, UNFINISHED, DAMAGED = "step_", ".unfinished_", "damaged_"
_NUMBER = "[0-9]{8}|[1-9][0-9]{8,17}"  # as `path` writes it, and nothing else that int() reads
_CHECKPOINT = re.compile(f"{PREFIX}({_NUMBER})")
_REMEDIES = {ENOSPC: "Free disk space", EFBIG: "Raise the limit of the size of a file (ulimit -f)"}
_LEFTOVER = re.compile(rf"\.unfinished_({PREFIX})?({_NUMBER})")


class CheckpointError(ValueError):
    """A checkpoint cannot be written, or none can be read; the message says why and what to do."""


class ForeignCheckpoint(CorruptCheckpoint):
    """A checkpoint of another run."""


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, complete or damaged, oldest first; other names are ignored."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # the first checkpoint creates the folder
        return []
    return sorted(int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name)))


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
    the main rank, which uses neither weights nor the process group. With `sharded` every rank writes its own part on a thread,
    and the main rank publishes the checkpoint once all parts are written; the folder must be one that all hosts share.
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
        sharded: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.is_main, self.any_rank, self.all_ranks = is_main, any_rank, all_ranks
        self.sharded, self.rank, self.world_size = sharded, rank, world_size
        self._writing: threading.Thread | None = None
        self._own_part = threading.Event()  # set when this rank's part is written, or cannot be
        self._abandon = threading.Event()  # set when some part cannot be written
        self._all_parts = threading.Event()  # set when no rank writes its part any more
        self._step, self._seconds = 0, 0.0
        self._error: Exception | None = None

    def steps(self) -> list[int]:
        """Steps of the checkpoints in the folder, complete or damaged, oldest first."""
        return checkpoint_steps(self.folder)

    def path(self, step: int) -> Path:
        """Path of the checkpoint after `step` steps."""
        return self.folder / f"{PREFIX}{step:08d}"

    def newest(self, run: str | None = None) -> tuple[int | None, list[str]]:
        """Step of the newest undamaged checkpoint (None without any checkpoint), and a message for each damaged newer one.

        With `run`, checkpoints whose metadata `run` is another one count as damaged. Damaged ones are renamed to `damaged_…`.
        Call it on the main rank only. Raises CheckpointError, without changing anything, when all checkpoints are damaged or
        when they cannot be read.
        """
        try:
            check_folder(self.folder)
            step, faults = self._newest_whole(run)
        except UnsafeFile as error:
            raise CheckpointError(f"{error.filename} {error.strerror}") from error
        except OSError as error:
            raise CheckpointError(
                f"cannot read {error.filename or self.folder}: {error.strerror or error}. Nothing was changed. Fix the disk, the "
                "network or the permissions, then --resume"
            ) from error
        return step, [self._set_aside(*damaged) for damaged in faults.items()]

    def _newest_whole(self, run: str | None) -> tuple[int | None, dict[int, CorruptCheckpoint]]:
        faults: dict[int, CorruptCheckpoint] = {}
        for step in reversed(self.steps()):
            try:
                _check_metadata(check(self.path(step)), step, run)
            except CorruptCheckpoint as fault:
                faults[step] = fault
            else:
                return step, faults
        if faults and all(isinstance(fault, ForeignCheckpoint) for fault in faults.values()):
            raise CheckpointError(
                f"every checkpoint in {self.folder} is of another run than `run` in environment.json says. To continue from them "
                "anyway, if they are yours, remove environment.json"
            )
        if faults:
            listed = "; ".join(f"{self.path(step).name}: {fault}" for step, fault in faults.items())
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged or of another run ({listed}). Restore one from a backup, or "
                "start a new run in another folder"
            )
        return None, {}

    def metadata(self, step: int) -> dict[str, Any]:
        """The metadata of a checkpoint that `newest` has returned."""
        return manifest(self.path(step))

    def write(self, step: int, copy: Callable[[], Save], metadata: dict[str, object]) -> Written | None:
        """Start a checkpoint: `copy()` copies the state, on every rank, and returns a function that writes it into a folder.

        That function runs later, on the main rank only, or on every rank with `sharded`, and then returns the path of the file
        that it has written. Waits for the previous checkpoint and returns what `wait` returns.
        """
        previous = self.wait()
        save = copy()
        self._step = step
        self._own_part.clear()
        self._abandon.clear()
        self._all_parts.clear()
        if self.sharded:
            if self.is_main:
                try:
                    self._make_folder(step)
                except OSError as error:
                    self._error = error
            self.all_ranks()  # so that no rank takes a folder that a killed run has left for that of this checkpoint
            self._raise_if_failed()
        if self.is_main:
            self._writing = threading.Thread(target=self._publish, args=(step, save, metadata), name="checkpoint")
        elif self.sharded:
            self._writing = threading.Thread(target=self._contribute, args=(step, save), name="checkpoint")
        if self._writing is not None:
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
        if self.sharded:
            if thread is not None:
                self._own_part.wait()
            self.all_ranks()
            if self.any_rank(self.failed):  # the main rank would wait for a part that never comes
                self._abandon.set()
            self._all_parts.set()
        if thread is not None:
            thread.join()
        self.all_ranks()  # without it `any_rank` may time out while the main rank writes
        self._raise_if_failed()
        return None if thread is None else Written(self._step, self._seconds)

    def _raise_if_failed(self) -> None:
        if self.any_rank(self.failed):
            if self._error is None or isinstance(self._error, OSError | SafetensorError):
                raise CheckpointError(self._message()) from self._error
            raise self._error  # not a disk error

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for the thread, also after an exception; then a checkpoint whose other parts are not written is given up."""
        if self._writing is not None:
            if exception[0] is not None or self.failed:
                self._abandon.set()
            self._all_parts.set()
            self._writing.join()

    def _publish(self, step: int, save: Save, metadata: dict[str, object]) -> None:
        began = time.perf_counter()
        unfinished, final = self.folder / f"{UNFINISHED}{step:08d}", self.path(step)
        made = self.sharded
        try:
            if not made:
                self._make_folder(step)
                made = True
            if self.sharded:
                self._save_part(unfinished, save)
                metadata = {**metadata, "shards": self.world_size}
                write_manifest(
                    unfinished, {"step": step, **metadata}, collected(unfinished, self.world_size, self._abandon)
                )
            else:
                save(unfinished)
                write_manifest(unfinished, {"step": step, **metadata})
            if os.path.lexists(final):
                self._remove(final)
            os.replace(unfinished, final)
            to_disk(self.folder)
            for old in [one for one in self.steps() if one <= step][: -self.keep]:
                if self.keep_every is None or old % self.keep_every:
                    self._remove(self.path(old))
            self._seconds = time.perf_counter() - began
        except Abandoned:  # the error of another rank
            shutil.rmtree(unfinished, ignore_errors=True)
        except Exception as error:  # raised by `wait`, in the training thread
            self._error = error
            self._own_part.set()
            if self.sharded:
                self._all_parts.wait()  # they are in the folder that is deleted next
            if made:
                shutil.rmtree(unfinished, ignore_errors=True)

    def _contribute(self, step: int, save: Save) -> None:
        """Write this rank's part into the folder that the main rank makes."""
        began = time.perf_counter()
        try:
            unfinished = self.folder / f"{UNFINISHED}{step:08d}"
            wait_for_folder(unfinished, self._abandon)
            self._save_part(unfinished, save)
            self._seconds = time.perf_counter() - began
        except Abandoned:
            pass
        except Exception as error:  # raised by `wait`, in the training thread
            self._error = error
        finally:
            self._own_part.set()

    def _save_part(self, unfinished: Path, save: Save) -> None:
        announce_part(unfinished, self.rank, save(unfinished))
        self._own_part.set()

    def _make_folder(self, step: int) -> None:
        """Delete what a killed run has left, and make the folder that is renamed when it is complete."""
        check_folder(self.folder)
        self.folder.mkdir(exist_ok=True)  # without its parent: the run folder may have been moved away
        for name in filter(_LEFTOVER.fullmatch, os.listdir(self.folder)):
            _delete(self.folder / name)
        (self.folder / f"{UNFINISHED}{step:08d}").mkdir()

    def _remove(self, checkpoint: Path) -> None:
        """Rename, then delete, so that a partly deleted folder is never taken for a checkpoint."""
        doomed = self.folder / f"{UNFINISHED}{checkpoint.name}"
        os.replace(checkpoint, doomed)
        _delete(doomed)

    def _set_aside(self, step: int, fault: CorruptCheckpoint) -> str:
        path = self.path(step)
        names = (f"{DAMAGED}{path.name}" + (f"-{n}" if n else "") for n in range(len(os.listdir(self.folder)) + 1))
        aside = next(self.folder / name for name in names if not os.path.lexists(self.folder / name))
        os.replace(path, aside)
        what = "cannot be used" if isinstance(fault, ForeignCheckpoint) else "is damaged"
        return f"{path} {what}: {fault}; it was renamed to {aside.name}, and the checkpoint before it is used"

    def _message(self) -> str:
        if self._error is None:
            who = "another rank could not write its part of" if self.sharded else "rank 0 could not write"
            return f"{who} a checkpoint; its message says why"
        error = _system_error(self._error)
        why = f"{error.filename or self.folder}: {error.strerror or error}"
        whole = self.steps()
        if self._step in whole:
            return f"the checkpoint after step {self._step} is complete, but older ones could not be deleted ({why})"
        rest = f"the one after step {whole[-1]} is complete" if whole else "there is no earlier one"
        return (
            f"the checkpoint after step {self._step} could not be written ({why}); {rest}. "
            f"{_REMEDIES.get(error.errno, 'Fix this')}, then --resume"
        )


def _check_metadata(metadata: dict[str, Any], step: int, run: str | None) -> None:
    """Raise CorruptCheckpoint if a valid manifest is of another step or run, or has values of another type."""
    if run is not None and metadata.get("run", run) != run:
        raise ForeignCheckpoint("it is a checkpoint of another run")
    if type(metadata.get("step")) is not int or metadata["step"] != step:
        raise CorruptCheckpoint("it is a checkpoint of another step")
    numbers = [metadata.get("skipped_in_a_row", 0)]
    items = metadata.get("items")
    if items is not None:
        if not isinstance(items, list):
            raise CorruptCheckpoint("items in its manifest is not a list")
        numbers += [number for number in items if number is not None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CorruptCheckpoint("items or skipped_in_a_row in its manifest are no whole numbers")


def _system_error(error: Exception) -> OSError:
    """An error of writing as one of the system, of which safetensors has the number in its text."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))


def _delete(path: Path) -> None:
    """Delete a folder with its content; of a link, the link only."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        try:
            shutil.rmtree(path)
        except RecursionError:
            raise OSError(ENAMETOOLONG, "folders are nested too deeply to be deleted: delete it", str(path)) from None
    else:
        path.unlink()
