"""Tensors of a checkpoint file, recognized by its content, by dotted names. No code of the file is run."""

import argparse
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

LONGEST_NAME = 1000  # characters; ends the reading of mappings that are nested without end

# Plain values that training programs often save beside the weights: arguments, paths, the best accuracy.
PLAIN_VALUES: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),  # up to numpy 1
    np.float64(0).__reduce__()[0],
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or PyTorch file (by content, whatever its suffix), on the CPU.

    The names are those of the nested mappings joined by dots: `state_dict.module.conv1.weight`. Raises ValueError for a file
    of another type, a damaged one, one with Python objects that could run code, and one without tensors.
    """
    with path.open("rb") as file:
        start = file.read(512)
    try:
        if _is_safetensors(start):
            loaded: Any = load_file(path)
        elif found := _other_type(path, start):
            raise ValueError(
                f"model.weights: {path} is {found}, not a file of weights in PyTorch's or safetensors' format"
            )
        else:
            with torch.serialization.safe_globals(PLAIN_VALUES):
                loaded = torch.load(path, "cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(_not_only_tensors(path, error)) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"model.weights: {path} is damaged: {reason}") from error
    tensors = dict(_tensors(loaded, "", set()))
    if not tensors:
        raise ValueError(f"model.weights: {path} contains no tensors with names")
    return tensors


def _is_safetensors(start: bytes) -> bool:
    """A safetensors file starts with the length of its header, 8 bytes, and the header, a JSON object."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40


def _other_type(path: Path, start: bytes) -> str | None:
    """What a file is that is certainly not of PyTorch, or None."""
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS (git lfs pull fetches the file)"
    if start.lstrip()[:1] == b"<":
        return "a web page"
    if start.lstrip()[:1] in (b"{", b"["):
        return "a JSON file"
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file"
    if start[:3] == b"\x1f\x8b\x08":
        return "compressed with gzip"
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith(".npy") for name in names):
            return "a NumPy archive"
        if any(name.endswith("constants.pkl") for name in names):
            return "a TorchScript program"
        if not any(name.endswith("data.pkl") for name in names):
            return "a zip archive"
    return None


def _not_only_tensors(path: Path, error: UnpicklingError) -> str:
    blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if blocked is None:
        return f"model.weights: {path} is damaged, or not a file of PyTorch"
    return (
        f"model.weights: {path} contains Python objects ({blocked[1]}), which could run code and are not loaded; save only the "
        "tensors: torch.save(model.state_dict(), PATH)"
    )


def _tensors(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """`seen` are the mappings and lists that were read before: a hostile file may contain itself."""
    if isinstance(value, Tensor):
        if name:
            yield name, value
    elif isinstance(value, Mapping | list | tuple) and id(value) not in seen and len(name) < LONGEST_NAME:
        seen.add(id(value))
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(inner, f"{name}.{key}" if name else str(key), seen)
