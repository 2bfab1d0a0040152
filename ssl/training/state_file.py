"""A saved training state, in one file or in one for each rank that wrote it: tensors, and pieces of them, by name.

The pieces `NAME@START` of a state in several files are flattened elements from START on. Each file lists the whole shapes of
the tensors that it has pieces of, and the first file, of rank 0, those of all tensors.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wildfern.bounded_json import parse_json
from wildfern.files import UnsafeFile, open_reading
from wildfern.ssl.training.checksums import MANIFEST, manifest
from wildfern.ssl.training.fitting_state import DTYPES, StateMismatch

FILE = "training.safetensors"
_SHARD = re.compile(r"training_(\d{5})_of_(\d{5})\.safetensors")
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Described = tuple[list[int], str]  # shape and type (`fitting_state.DTYPES`)


class SavedState(Protocol):
    """Tensors by the names under which they were saved."""

    def keys(self) -> Sequence[str]:
        """Names of all tensors."""

    def described(self, name: str) -> Described:
        """Shape and type of a tensor, without reading it."""

    def tensor(self, name: str) -> Tensor:
        """A tensor."""

    def piece(self, name: str, start: int, count: int) -> Tensor:
        """`count` elements of the flattened tensor; only these are read from the disk."""


def shard_name(rank: int, world_size: int) -> str:
    """Name of the file that a rank writes."""
    return f"training_{rank:05d}_of_{world_size:05d}.safetensors"


def shard_files(folder: Path) -> list[Path]:
    """The files of a state in several files, by rank; raises ValueError if one is missing, or if they are of several states."""
    found = sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    if (ranks := _ranks(folder)) is not None:  # other files are no parts of it
        found = [path for path in found if path.name.endswith(f"_of_{ranks:05d}.safetensors")]
    counts = {int(_SHARD.fullmatch(path.name)[2]) for path in found}  # type: ignore[index]
    if len(counts) > 1:
        raise ValueError(f"{folder} holds parts of states of {' and of '.join(map(str, sorted(counts)))} ranks")
    for rank in range(*counts) if counts else ():
        if rank >= len(found) or found[rank].name != shard_name(rank, *counts):
            raise ValueError(f"{folder} is damaged: {shard_name(rank, *counts)} is missing")
    return found


def _ranks(folder: Path) -> int | None:
    """How many ranks wrote a checkpoint in parts, by its manifest; None for one file, and for a folder without manifest."""
    return manifest(folder).get("shards") if (folder / MANIFEST).exists() else None


@contextmanager
def open_state(folder: Path, rank: int = 0, world_size: int = 1) -> Iterator[SavedState]:
    """The state in a checkpoint folder. A rank looks for pieces in the file of its own rank first, if as many ranks wrote it.

    Raises ValueError if there is none, or if it is damaged, also inside the block.
    """
    shards: list[Path] = []
    try:
        # A whole file beside parts that the manifest lists is no part of the checkpoint.
        whole = (folder / FILE).exists() and _ranks(folder) is None
        shards = [] if whole else shard_files(folder)
        with ExitStack() as stack:
            if shards:
                yield ShardedState(shards, stack, rank if world_size == len(shards) else 0)
            else:
                yield WholeState(stack.enter_context(_opened(folder / FILE)))
    except FileNotFoundError as error:
        if shards:
            raise ValueError(f"{folder} is damaged: {Path(error.filename or shards[0]).name} is missing") from error
        raise ValueError(
            f"{folder} holds no {FILE}: it is damaged, or was written by a version with other files"
        ) from error
    except UnsafeFile as error:
        raise ValueError(f"{error.filename} {error.strerror}") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / (shards[0].name if shards else FILE)} is damaged: {error}") from error


class WholeState:
    """A state in one file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def keys(self) -> Sequence[str]:
        return self._file.keys()

    def described(self, name: str) -> Described:
        found = self._file.get_slice(name)
        return found.get_shape(), found.get_dtype()

    def tensor(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def piece(self, name: str, start: int, count: int) -> Tensor:
        # The file is mapped into memory: what is not looked at is not read.
        return self._file.get_tensor(name).flatten()[start : start + count]


class ShardedState:
    """A state in a file of each rank; files are opened when a piece is in none of those that are open."""

    def __init__(self, files: Sequence[Path], stack: ExitStack, first: int = 0) -> None:
        self._files, self._stack = files, stack
        self._open: dict[int, Any] = {}
        self._pieces: defaultdict[str, dict[int, tuple[int, int]]] = defaultdict(dict)  # start -> (count, file)
        self._known = self._described_in(self._look(0), files[0])
        if first:
            self._look(first)

    def keys(self) -> Sequence[str]:
        return list(self._known)

    def described(self, name: str) -> Described:
        return self._known[name]

    def tensor(self, name: str) -> Tensor:
        shape, _ = self.described(name)
        return self.piece(name, 0, math.prod(shape)).view(shape)

    def piece(self, name: str, start: int, count: int) -> Tensor:
        found = self._found(name, start, count)
        if found is None:
            for number in range(len(self._files)):
                self._look(number)
            found = self._found(name, start, count)
        if found is None:
            raise StateMismatch(f"parts of {name} are missing")
        whole = torch.empty(count, dtype=DTYPES[self.described(name)[1]])
        for at, (length, number) in found:
            first, last = max(start, at), min(start + count, at + length)
            part = self._open[number].get_tensor(f"{name}@{at}")
            whole[first - start : last - start] = part[first - at : last - at]
        return whole

    def _found(self, name: str, start: int, count: int) -> list[tuple[int, tuple[int, int]]] | None:
        """The known pieces, by their start, that hold these elements; None if they do not hold all."""
        pieces, at, found = self._pieces[name], start, []
        for first in sorted(pieces):
            length, number = pieces[first]
            if first <= at < first + length:
                found.append((first, (length, number)))
                at = first + length
            if at >= start + count:
                break
        return found if at >= start + count else None

    def _look(self, number: int) -> Any:
        """Open a file and note its pieces."""
        if number in self._open:
            return self._open[number]
        file = self._open[number] = self._stack.enter_context(_opened(self._files[number]))
        for key in file.keys():  # noqa: SIM118, not a mapping
            name, _, start = key.rpartition("@")
            described = file.get_slice(key)
            shape, kind = described.get_shape(), described.get_dtype()
            if not name or not start.isdecimal() or len(shape) != 1 or kind not in DTYPES:
                raise StateMismatch(f"{self._files[number].name} has {key!r}, which is no piece of a tensor")
            if number and self._known.get(name, ((), ""))[1] != kind:
                raise StateMismatch(f"{self._files[number].name} has {key!r}, which rank 0 does not have, or as {kind}")
            self._pieces[name][int(start)] = shape[0], number
        return file

    def _described_in(self, file: Any, path: Path) -> dict[str, Described]:
        """What rank 0 says of all tensors."""
        text = (file.metadata() or {}).get("tensors", "")
        try:
            found = parse_json(text.encode())
        except ValueError as error:
            raise StateMismatch(f"{path.name} does not list the tensors of the state: {error}") from None
        if not isinstance(found, dict) or not all(map(_is_description, found.values())):
            raise StateMismatch(f"{path.name} does not list the tensors of the state")
        return {name: (shape, kind) for name, (kind, *shape) in found.items()}


def listed(tensors: Mapping[str, tuple[Sequence[int], torch.dtype]]) -> str:
    """What rank 0 writes about all tensors of a state, into the metadata of its file."""
    return json.dumps({name: [_NAMES[dtype], *shape] for name, (shape, dtype) in tensors.items()})


def _is_description(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    kind, *shape = value
    return isinstance(kind, str) and kind in DTYPES and all(type(size) is int and 0 <= size < 2**48 for size in shape)


def _opened(path: Path) -> Any:
    open_reading(path).close()  # safetensors would follow a link, and wait for a FIFO
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
