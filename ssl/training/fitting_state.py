"""Whether the tensors of a file of training state are those of a network and an optimizer, before any of them is loaded."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from wildfern.ssl.training.optimizer_groups import check_group_number, first_state

GROUPS = "optimizer_groups/"
STEP = "step"  # the one key of an optimizer's state that is a scalar, not of the weight's shape

DTYPES = {  # as files of safetensors name them
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


class StateMismatch(ValueError):
    """The state in a file is not that of this network or optimizer."""


class StateFile(Protocol):
    """A file of training state: tensors by their current names."""

    names: set[str]

    def described(self, name: str) -> tuple[list[int], str]:
        """Shape and type (`DTYPES`) of a tensor, without reading it."""

    def tensor(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape."""

    def keys_of(self, weight: str) -> set[str]:
        """Keys of the optimizer's state for this weight."""


class _Shard(Protocol):
    tensor: Tensor
    names: list[str]


def check_tensor(file: StateFile, name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raise StateMismatch if a tensor is missing, or of another shape or type."""
    if name not in file.names:
        raise StateMismatch(f"{name} is missing")
    found, kind = file.described(name)
    if found != list(shape):
        raise StateMismatch(f"{name} is {found}, not {list(shape)}")
    if DTYPES.get(kind) != dtype:
        raise StateMismatch(f"{name} is {_words(DTYPES.get(kind, kind))}, not {_words(dtype)}")


def check_tensors(file: StateFile, expected: Mapping[str, Tensor | tuple[Sequence[int], torch.dtype]]) -> None:
    """Raise StateMismatch unless the file has these tensors, and no others besides the optimizer's."""
    other = sorted(name for name in file.names - expected.keys() if not name.startswith(("optimizer/", GROUPS)))
    if other:
        raise StateMismatch(f"unexpected weight {other[0]} in the checkpoint ({len(other)} in total)")
    for name, value in expected.items():
        check_tensor(file, name, *((value.shape, value.dtype) if isinstance(value, Tensor) else value))


def check_optimizer(
    file: StateFile,
    optimizer: torch.optim.Optimizer,
    shards: Sequence[_Shard],
    shapes: Mapping[str, Sequence[int]],
) -> None:
    """Raise StateMismatch unless the file has the state of this optimizer for every weight, or for none (before a first step)."""
    keys = {name: file.keys_of(name) for shard in shards for name in shard.names}
    known = {f"optimizer/{name}/{key}" for name in keys for key in keys[name]}
    if other := sorted(name for name in file.names if name.startswith("optimizer/") and name not in known):
        raise StateMismatch(f"unexpected {other[0]} in the checkpoint ({len(other)} in total)")
    first = first_state(optimizer) if known else {}
    for shard in shards:
        made = first.get(id(shard.tensor), {})
        for name in shard.names if known else ():
            for key in sorted(keys[name] | made.keys()):
                scalar = key == STEP
                dtype = made[key].dtype if key in made else torch.float32 if scalar else shard.tensor.dtype
                check_tensor(file, f"optimizer/{name}/{key}", () if scalar else shapes[name], dtype)
                if scalar:
                    check_count(f"optimizer/{name}/{key}", file.tensor(f"optimizer/{name}/{key}", ()))
    for name in sorted(name for name in file.names if name.startswith(GROUPS)):
        shape, kind = file.described(name)
        if shape not in ([], [1]) or kind not in DTYPES:
            raise StateMismatch(f"{name} is {shape} of {kind}, not a number")
        value = file.tensor(name, shape)
        try:
            check_group_number(optimizer, name.removeprefix(GROUPS), value)
        except ValueError as error:
            raise StateMismatch(str(error)) from None
        if name.endswith(f"/{STEP}"):
            check_count(name, value)


def check_count(name: str, value: Tensor) -> None:
    """Raise StateMismatch for a step count that is not a whole number from 0."""
    count = float(value)
    if not (math.isfinite(count) and count >= 0 and count == int(count)):
        raise StateMismatch(f"{name} is {count:g}, not a number of steps")


def _words(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")
