"""A training state that ranks wrote in parts, joined into one file without holding it in memory."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from wildfern.ssl.training.fitting_state import DTYPES, StateMismatch
from wildfern.ssl.training.state_file import SavedState, open_state

_AT_ONCE = 2**24  # elements


class NotMerged(Exception):
    """The merged file cannot be written; the message says why."""


def merge(
    folder: Path,
    out: BinaryIO,
    progress: Callable[[int, int], None] = lambda done, total: None,
    names: Mapping[str, str] | None = None,
) -> int:
    """Write the state of a checkpoint folder to `out` in the format of safetensors; returns the number of tensors.

    With `names` only these tensors of the state are written, under other names: {name in the file: name in the state}.
    `progress` gets bytes written and in all. Raises ValueError if the state is damaged or parts of it are missing, and NotMerged.
    """
    with open_state(folder) as state:
        chosen = {name: name for name in state.keys()} if names is None else names  # noqa: SIM118, not a mapping
        if missing := sorted(set(chosen.values()) - set(state.keys())):
            raise StateMismatch(f"it has no {missing[0]}")
        names = dict(sorted(chosen.items(), key=lambda item: (-DTYPES[state.described(item[1])[1]].itemsize, item[0])))
        header, total = _header(state, names)
        _write(out, len(header).to_bytes(8, "little") + header)
        done = 0
        for name in names.values():
            shape, _ = state.described(name)
            count = math.prod(shape)
            for start in range(0, count, _AT_ONCE):
                part = state.piece(name, start, min(_AT_ONCE, count - start))
                _write(out, _bytes_of(part))
                done += part.nbytes
                progress(done, total)
    return len(names)


def _write(out: BinaryIO, content: bytes | memoryview) -> None:
    left = memoryview(content)
    try:
        while left:
            left = left[out.write(left) :]
    except OSError as error:  # of the file to write, not of the state
        raise NotMerged(error.strerror or str(error)) from error


def _header(state: SavedState, names: Mapping[str, str]) -> tuple[bytes, int]:
    """The header of a safetensors file, padded to 8 bytes, and the bytes of all tensors; in this order, which aligns them."""
    content, at = {}, 0
    for name, inside in names.items():
        shape, kind = state.described(inside)
        end = at + math.prod(shape) * DTYPES[kind].itemsize
        content[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), at


def _bytes_of(flat: Tensor) -> memoryview:
    return memoryview(flat.contiguous().view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
