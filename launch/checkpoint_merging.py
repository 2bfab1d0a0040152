"""The state of a checkpoint in one file, for tools that read safetensors."""

import os
from pathlib import Path

from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import output_file, writing
from wildfern.ssl.training.checkpoints import checkpoint_steps
from wildfern.ssl.training.checksums import MANIFEST, CorruptCheckpoint, check
from wildfern.ssl.training.fitting_state import StateMismatch
from wildfern.ssl.training.merging import NotMerged, merge


def merge_checkpoint(run: Path, out: Path) -> tuple[Path, int, int]:
    """Write the state of a checkpoint, or of the newest one of a run folder, to the file `out`: which, its tensors and bytes.

    Checksums are verified first. If the run deletes the checkpoint meanwhile, its newest one then is taken. Raises RunError
    for a folder without a checkpoint, and for one that is damaged.
    """
    folder = _checkpoint(run)
    file = output_file(out)
    while True:
        try:
            return folder, *_merge(folder, file, out)
        except (RunError, FileNotFoundError) as error:
            if folder.exists():
                raise
            if folder == Path(os.path.expanduser(run)):
                raise RunError(f"{folder} was deleted meanwhile: the run keeps its newest checkpoints only") from error
            folder = _checkpoint(run)


def _merge(folder: Path, file: Path, out: Path) -> tuple[int, int]:
    """Tensors and bytes of the file."""
    try:
        check(folder)
        with writing(file) as path, path.open("wb", buffering=0) as opened:
            tensors = merge(folder, opened)
            size = opened.tell()
    except NotMerged as error:
        raise RunError(f"cannot write {out}: {error}") from error
    except (CorruptCheckpoint, StateMismatch) as error:
        raise RunError(f"{folder} is damaged: {error}{_others(folder)}") from error
    except ValueError as error:
        raise RunError(str(error)) from error
    return tensors, size


def _others(folder: Path) -> str:
    """The newest of the other checkpoints of its run, which the user may merge instead."""
    others = [one for step in checkpoint_steps(folder.parent) if (one := folder.parent / f"step_{step:08d}") != folder]
    return f". To merge the checkpoint {others[-1].name} instead, name its folder {others[-1]}" if others else ""


def _checkpoint(run: Path) -> Path:
    run = Path(os.path.expanduser(run))
    if (run / MANIFEST).is_file():
        return run
    if steps := checkpoint_steps(run / "checkpoints"):
        return run / "checkpoints" / f"step_{steps[-1]:08d}"
    raise RunError(f"{run} is neither a checkpoint (it has no {MANIFEST}) nor a run folder with checkpoints")
