"""Tensors of a checkpoint file, recognized by its content, by dotted names. No code of the file is run."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wildfern.files import open_reading

LONGEST_NAME = 1000  # characters; ends the reading of mappings that are nested without end
MOST_DOTS = 50
MOST_CLASSES = 200  # of objects in a file
MOST_HEADER = 16 * 2**20  # bytes, of a safetensors file
MOST_TENSORS = 100_000
OF_A_MODULE = ("_modules", "_parameters", "_buffers")  # a pickled torch.nn.Module has its own names below these


class Unread:
    """Stands for an object of any class in a file: keeps its state, without the class and its code."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# Stand-ins for containers whose items are added after they are made, which torch's reader allows for plain ones only.
CONTAINERS: dict[str, Any] = {
    "collections.defaultdict": lambda *arguments: {},
    "collections.deque": lambda *arguments: [],
}


def read_tensors(path: Path, only_safetensors: bool = False) -> dict[str, Tensor]:
    """All tensors of a safetensors or PyTorch file (by content, whatever its suffix), on the CPU.

    The names are those of the nested mappings joined by dots: `state_dict.module.conv1.weight`. Of Python objects, such as
    whole networks or settings, only the tensors in them are read; no class is imported. Raises ValueError for a file of
    another type (PyTorch's too, with `only_safetensors`), a damaged one, one with objects that cannot be read in this way, and
    one without tensors.
    """
    try:
        with open_reading(path) if only_safetensors else path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ValueError(f"model.weights: {path} cannot be read: {error.strerror or error}") from error
    try:
        if _is_safetensors(start):
            loaded: Any = _from_safetensors(path, int.from_bytes(start[:8], "little"))
        elif only_safetensors:
            what = _other_type(path, start) or "of another format"
            raise ValueError(f"model.weights: {path} is damaged: it is {what}, not a file of safetensors")
        elif found := _other_type(path, start):
            raise ValueError(
                f"model.weights: {path} is {found}, not a file of weights in PyTorch's or safetensors' format"
            )
        else:
            loaded = _without_classes(path)
    except UnpicklingError as error:
        raise ValueError(_not_only_tensors(path, error)) from error
    except (OSError, SafetensorError, RuntimeError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"model.weights: {path} is damaged: {reason[:300]}") from error
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises many kinds
        if str(error).startswith("model.weights:"):
            raise
        raise ValueError(f"model.weights: {path} is damaged, or not a file of PyTorch") from error
    tensors = {name: tensor for name, tensor in _tensors(loaded, "", set()) if _is_name(name)}
    if not tensors:
        raise ValueError(f"model.weights: {path} contains no tensors with names")
    return tensors


def _is_name(name: str) -> bool:
    """Whether a network may have a tensor of this name; the number of prefixes to look at grows with the dots."""
    return len(name) <= LONGEST_NAME and name.count(".") <= MOST_DOTS and name.isprintable()


def _from_safetensors(path: Path, header: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose header has this many bytes."""
    if header > MOST_HEADER:
        raise ValueError(
            f"model.weights: {path} is damaged: its header has {header:,} bytes, more than {MOST_HEADER:,}"
        )
    tensors: dict[str, Tensor] = load_file(path)
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"model.weights: {path} has {len(tensors):,} tensors, more than {MOST_TENSORS:,}")
    return tensors


def _without_classes(path: Path) -> Any:
    """What a file of `torch.save` holds, with `Unread` for objects of all classes but torch's own."""
    names = set(CONTAINERS)
    with suppress(Exception):  # only files in the zip format tell all at once
        names.update(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    while True:
        stand_ins: list[Any] = [(CONTAINERS.get(name, Unread), name) for name in names]
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, "cpu", weights_only=True)
        except UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+) was not an allowed", str(error))
            name = found and (found[1] if "." in found[1] else f"builtins.{found[1]}")
            if name is None or name in names or len(names) > MOST_CLASSES:
                raise
            names.add(name)


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
    if blocked is None and "Unread" not in str(error):
        return f"model.weights: {path} is damaged, or not a file of PyTorch"
    what = f"Python objects ({blocked[1]})" if blocked else "Python objects"
    return (
        f"model.weights: {path} contains {what}, which could run code and are not loaded; save only the tensors: "
        "torch.save(model.state_dict(), PATH)"
    )


def _tensors(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """`seen` are the mappings and lists that were read before: a hostile file may contain itself."""
    if isinstance(value, Tensor):
        if name:
            yield name, value
    elif id(value) in seen or len(name) >= LONGEST_NAME:
        return
    elif isinstance(value, Unread):
        seen.add(id(value))
        state = value.state if isinstance(value.state, dict) else {}
        for key, inner in state.items():
            yield from _tensors(inner, name if key in OF_A_MODULE else _joined(name, key), seen)
    elif isinstance(value, Mapping | list | tuple):
        seen.add(id(value))
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(inner, _joined(name, key), seen)


def _joined(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)
