"""The state of a checkpoint in one file, for tools that read safetensors, and the backbone of it, for evaluations."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from wildfern.launch.builders import build_method
from wildfern.launch.errors import RunError
from wildfern.launch.output_paths import output_file, writing
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.training.checkpoints import checkpoint_steps
from wildfern.ssl.training.checksums import MANIFEST, CorruptCheckpoint, check
from wildfern.ssl.training.fitting_state import StateMismatch
from wildfern.ssl.training.merging import NotMerged, merge


def merge_checkpoint(run: Path, out: Path) -> tuple[Path, int, int]:
    """Write the state of a checkpoint, or of the newest one of a run folder, to the file `out`: which, its tensors and bytes.

    Checksums are verified first. If the run deletes the checkpoint meanwhile, its newest one then is taken. Raises RunError
    for a folder without a checkpoint, and for one that is damaged.
    """
    return _merged(run, output_file(out), out)


def write_newest_backbone(run: Path) -> tuple[Path, int, int]:
    """Write `backbone.safetensors` of a run folder from its newest checkpoint, piece by piece: which, its tensors and bytes.

    And `decoder.safetensors`, without a threshold, for a method that segments.

    For a run in training, or that was stopped, whose checkpoints are sharded: others have the file from their first checkpoint
    on. Raises RunError as `merge_checkpoint` does, and for anything but a run folder.
    """
    folder = RunFolder.for_reading(run)
    backbone, decoder = _names_of_networks(folder.recipe(needs=("method",)))
    if decoder:
        file = folder.path / "decoder.safetensors"
        _merged(folder.path, file, file, decoder)
    file = folder.path / "backbone.safetensors"
    return _merged(folder.path, file, file, backbone)


def _names_of_networks(recipe: Recipe) -> tuple[dict[str, str], dict[str, str]]:
    """The tensors of the backbone to evaluate, and of a decoder, by their own names: their names in a training state."""
    with torch.device("meta"):
        method = build_method(recipe, replaced=True)
    known: dict[int, str] = {}
    for root, module in {"method/": method, **{f"teacher/{name}/": m for name, m in method.teachers().items()}}.items():
        for name, tensor in module.state_dict(keep_vars=True).items():
            known.setdefault(id(tensor), root + name)

    def names(module: nn.Module) -> dict[str, str]:
        return {name: known[id(tensor)] for name, tensor in module.state_dict(keep_vars=True).items()}

    decoder = method.segmentation_decoder()
    return names(method.eval_backbone().network), {} if decoder is None else names(decoder)


def _merged(run: Path, file: Path, out: Path, names: Mapping[str, str] | None = None) -> tuple[Path, int, int]:
    folder = _checkpoint(run)
    while True:
        try:
            return folder, *_merge(folder, file, out, names)
        except (RunError, FileNotFoundError) as error:
            if folder.exists():
                raise
            if folder == Path(os.path.expanduser(run)):
                raise RunError(f"{folder} was deleted meanwhile: the run keeps its newest checkpoints only") from error
            folder = _checkpoint(run)


def _merge(folder: Path, file: Path, out: Path, names: Mapping[str, str] | None) -> tuple[int, int]:
    """Tensors and bytes of the file."""
    try:
        check(folder)
        with writing(file) as path, path.open("wb", buffering=0) as opened:
            tensors = merge(folder, opened, names=names)
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
