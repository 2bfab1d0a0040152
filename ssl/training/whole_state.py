"""The full state of training by name, in one file that every engine reads, on any number of ranks.

`training.safetensors` holds `method/NAME` (weights and buffers), `optimizer/NAME/KEY` (optimizer state of the weight NAME),
`optimizer_groups/INDEX/KEY` (numbers of its parameter groups), `teacher/TEACHER/NAME` and, of online evaluations, `probe/NAME`
and `online_knn/NAME`. Of a frozen teacher it holds only the SHA-256, `frozen/TEACHER/sha256`. The format cannot contain code.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wildfern.files import UnsafeFile, open_reading
from wildfern.ssl.methods.base import Method
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.teacher import Gather
from wildfern.ssl.training.fitting_state import GROUPS, STEP, StateMismatch, check_optimizer, check_tensors
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.optimizer_groups import counted_keys, group_numbers, set_group_numbers

FILE = "training.safetensors"
ONLINE = ("probe/", "online_knn/")  # roots of online evaluations, which a resumed run may add or drop


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + count) of the flattened weight `name`, at `offset` of a flattened shard."""

    name: str
    start: int
    count: int
    offset: int


@dataclass(frozen=True)
class Shard:
    """One tensor that the optimizer steps: a weight, or this rank's share of several, flattened one after the other.

    `names` are all weights that have a fragment in this shard on any rank, the same list on every rank.
    """

    tensor: Tensor
    names: list[str]
    fragments: list[Fragment]


class StateLayout(Protocol):
    """How an engine distributes weights and the optimizer's state over ranks."""

    optimizer: torch.optim.Optimizer  # the optimizer that steps the shards
    shards: list[Shard]
    is_main: bool  # whether this rank collects and writes the state
    gather: Gather  # weights whole inside the `with` block

    def add_to_main(self, flat: Tensor) -> None:
        """Sum every rank's contiguous tensor into the main rank's, byte by byte; a byte may be nonzero on one rank only."""

    def writing(self, parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
        """Weights whole inside the `with` block; values that all ranks write into them there are kept."""

    def written(self) -> None:
        """Called after all weights were written: update the engine's copies of them."""


def replicated_shards(method: Method) -> list[Shard]:
    """One shard for each trained weight, for engines that do not shard."""
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    return [Shard(p, [name], [Fragment(name, 0, p.numel(), 0)]) for name, p in named]


def collect(method: Method, layout: StateLayout, probe: OnlineEvaluation | None = None) -> dict[str, Tensor]:
    """The full state of training, on the CPU of the main rank; empty on other ranks. Called on every rank."""
    found: dict[str, Tensor] = {}
    for name, parameter in method.named_parameters():
        with layout.gather([parameter]):
            if layout.is_main:
                found[f"method/{name}"] = _on_host(parameter)
    shapes = {name: _shape(p) for name, p in method.named_parameters()}
    for shard in layout.shards:
        for key, value in sorted(layout.optimizer.state.get(shard.tensor, {}).items()):
            for name in shard.names:
                whole = _joined(shard, name, key, value, shapes[name], layout)
                if layout.is_main and whole is not None:
                    found[f"optimizer/{name}/{key}"] = whole
    if not layout.is_main:
        return {}
    found |= {f"{GROUPS}{name}": value for name, value in group_numbers(layout.optimizer).items()}
    found |= {f"method/{name}": _on_host(value) for name, value in _buffers(method).items()}
    for teacher, module in method.teachers().items():
        found |= {f"teacher/{teacher}/{name}": _on_host(value) for name, value in module.state_dict().items()}
    found |= _frozen(method)
    for part in _parts(probe):
        found |= {f"{part.root}{name}": _on_host(value) for name, value in part.state_dict().items()}
    return found


def write(state: dict[str, Tensor], folder: Path) -> None:
    """Write `training.safetensors` into an existing folder, with the folder's read permissions."""
    save_file(state, folder / FILE)
    (folder / FILE).chmod(folder.stat().st_mode & 0o666)  # safetensors makes files readable for their owner only


def restore(folder: Path, method: Method, layout: StateLayout, probe: OnlineEvaluation | None = None) -> None:
    """Load a file of `write` into the method, the optimizer, the teachers and the probe; called on every rank.

    An online evaluation that is not in the file keeps its initial state. Raises ValueError if the file is missing, damaged or of
    another network or optimizer, before anything is loaded.
    """
    try:
        open_reading(folder / FILE).close()  # safetensors would follow a link, and wait for a FIFO
        with safe_open(folder / FILE, framework="pt") as file:
            _restore(_Reading(file, method), method, layout, probe)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no {FILE}: it is damaged, or was written by a version with other files"
        ) from error
    except UnsafeFile as error:
        raise ValueError(f"{folder / FILE} {error.strerror}") from error
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / FILE} is damaged: {error}") from error
    except StateMismatch as error:
        raise ValueError(f"{folder / FILE} does not fit this recipe: {error}") from error


def current_names(names: Iterable[str], method: Method) -> dict[str, str]:
    """Current name -> name in the file, for all `names` of a file.

    Files of earlier versions have `method/backbone.conv1.weight` for today's `method/backbone.network.conv1.weight`, and
    likewise for the optimizer and teachers.
    """
    found = {name: name for name in names}
    trees = [("method/", method, ("method/", "optimizer/"))]
    trees += [(f"teacher/{name}/", module, (f"teacher/{name}/",)) for name, module in method.teachers().items()]
    for root, module, roots in trees:
        for path, backbone in module.named_modules():
            if not isinstance(backbone, Backbone):
                continue
            at = f"{path}." if path else ""
            weights = backbone.network.state_dict().keys()
            if any(f"{root}{at}network.{weight}" in found for weight in weights):
                continue
            old = [(name, start) for name in found for start in (r + at for r in roots) if name.startswith(start)]
            found |= {f"{start}network.{name.removeprefix(start)}": found.pop(name) for name, start in old}
    return found


class _Reading:
    """An open file: tensors by their current names, with checks of their shapes."""

    def __init__(self, file: object, method: Method) -> None:
        self._file = file
        self._name_in_file = current_names(file.keys(), method)
        self.names = set(self._name_in_file)
        self._keys: defaultdict[str, set[str]] | None = None

    def described(self, name: str) -> tuple[list[int], str]:
        """Shape and type of a tensor, without reading it."""
        found = self._file.get_slice(self._name_in_file[name])
        return found.get_shape(), found.get_dtype()

    def tensor(self, name: str, shape: Sequence[int]) -> Tensor:
        if name not in self.names:
            raise StateMismatch(f"{name} is missing")
        value = self._file.get_tensor(self._name_in_file[name])
        if value.shape != torch.Size(shape):
            raise StateMismatch(f"{name} is {list(value.shape)}, not {list(shape)}")
        return value

    def group_numbers(self) -> dict[str, Tensor]:
        """Numbers of the optimizer's parameter groups."""
        names = (name for name in self.names if name.startswith(GROUPS))
        return {name.removeprefix(GROUPS): self._file.get_tensor(name) for name in sorted(names)}

    def keys_of(self, weight: str) -> set[str]:
        """Keys of the optimizer's state for this weight."""
        if self._keys is None:
            self._keys = defaultdict(set)
            for name in self.names:
                if name.startswith("optimizer/"):
                    of, _, key = name.removeprefix("optimizer/").rpartition("/")
                    self._keys[of].add(key)
        return self._keys.get(weight, set())


@torch.no_grad()
def _restore(file: _Reading, method: Method, layout: StateLayout, probe: OnlineEvaluation | None) -> None:
    shapes = {name: _shape(p) for name, p in method.named_parameters()}
    _check(file, method, layout, probe, shapes)
    for name, parameter in method.named_parameters():
        value = file.tensor(f"method/{name}", shapes[name])
        with layout.writing([parameter]):
            parameter.copy_(value)
    layout.written()
    for name, buffer in _buffers(method).items():
        buffer.copy_(file.tensor(f"method/{name}", buffer.shape))
    for shard in layout.shards:
        layout.optimizer.state[shard.tensor] = _shared_out(file, shard, shapes, layout.optimizer)
    _restore_groups(file, layout)
    for teacher, module in method.teachers().items():
        for name, value in module.state_dict().items():
            value.copy_(file.tensor(f"teacher/{teacher}/{name}", value.shape))
    for part in _parts(probe):
        if any(name.startswith(part.root) for name in file.names):
            for name, value in part.state_dict().items():
                value.copy_(file.tensor(f"{part.root}{name}", value.shape))


def _check(
    file: _Reading, method: Method, layout: StateLayout, probe: OnlineEvaluation | None, shapes: dict[str, torch.Size]
) -> None:
    """Raise StateMismatch for anything that `_restore` could not load."""
    expected: dict[str, Tensor | tuple[torch.Size, torch.dtype]] = {
        f"method/{name}": (shapes[name], parameter.dtype) for name, parameter in method.named_parameters()
    }
    expected |= {f"method/{name}": value for name, value in _buffers(method).items()}
    for teacher, module in method.teachers().items():
        expected |= {f"teacher/{teacher}/{name}": value for name, value in module.state_dict().items()}
    frozen = _frozen(method)
    expected |= frozen
    online = {root: {name for name in file.names if name.startswith(root)} for root in ONLINE}
    known = [part for part in _parts(probe) if online.pop(part.root)]
    file.names -= set().union(*online.values())  # of a run that had others
    for part in known:
        expected |= {f"{part.root}{name}": value for name, value in part.state_dict().items()}
    check_tensors(file, expected)
    for part in known:
        part.check_state(
            {name: file.tensor(f"{part.root}{name}", value.shape) for name, value in part.state_dict().items()}
        )
    for name, value in frozen.items():
        if not torch.equal(file.tensor(name, value.shape), value):
            raise StateMismatch(
                f"the weights of the frozen {name.split('/')[1]} have changed since the run was started: restore them"
            )
    check_optimizer(file, layout.optimizer, layout.shards, shapes)


def _parts(probe: OnlineEvaluation | None) -> Sequence[OnlineEvaluation]:
    return [] if probe is None else probe.parts


def _frozen(method: Method) -> dict[str, Tensor]:
    """The SHA-256 of each frozen teacher, uint8[32]."""
    return {
        f"frozen/{name}/sha256": torch.tensor(list(bytes.fromhex(teacher.sha256)), dtype=torch.uint8)
        for name, teacher in method.frozen_teachers().items()
    }


def _restore_groups(file: _Reading, layout: StateLayout) -> None:
    """The numbers of the optimizer's parameter groups.

    Files of earlier versions have none. They can be read if the optimizer changes no such number in a step, and for LAMB,
    whose step count they have with each weight.
    """
    optimizer = layout.optimizer
    if numbers := file.group_numbers():
        set_group_numbers(optimizer, numbers)
        return
    if not any(name.startswith("optimizer/") for name in file.names) or not (missing := counted_keys(optimizer)):
        return
    counts = {int(state[STEP]) for shard in layout.shards if STEP in (state := optimizer.state[shard.tensor])}
    if missing != {STEP} or len(counts) != 1:
        raise StateMismatch(
            f"the optimizer counts {', '.join(sorted(missing))} in its parameter groups, which the version that wrote this file "
            "did not save: start a new run"
        )
    for shard in layout.shards:
        optimizer.state[shard.tensor].pop(STEP, None)
    for group in optimizer.param_groups:
        group[STEP] = torch.tensor(float(*counts))


def _joined(shard: Shard, name: str, key: str, value: object, shape: torch.Size, layout: StateLayout) -> Tensor | None:
    """The optimizer's full state tensor `key` of a weight, on the main rank; None if it is not a tensor."""
    if not isinstance(value, Tensor):
        return None
    if key == STEP:
        return _on_host(value)
    flat = torch.zeros(shape.numel(), dtype=value.dtype, device=value.device)
    for piece in shard.fragments:
        if piece.name == name:
            flat[piece.start : piece.start + piece.count] = value.flatten()[piece.offset : piece.offset + piece.count]
    layout.add_to_main(flat)
    return _on_host(flat.view(shape))


def _shared_out(file: _Reading, shard: Shard, shapes: dict[str, torch.Size], optimizer: torch.optim.Optimizer) -> dict:
    """The optimizer's state for this rank's shard, in the shard's memory layout."""
    keys = file.keys_of(shard.names[0])
    if other := [name for name in shard.names if file.keys_of(name) != keys]:
        raise StateMismatch(f"the optimizer's state of {shard.names[0]} and of {other[0]} have different keys")
    state = {}
    for key in sorted(keys):
        if key == STEP:
            counts = [file.tensor(f"optimizer/{name}/{key}", torch.Size()) for name in shard.names]
            if any(count != counts[0] for count in counts):
                raise StateMismatch("the optimizer's step counts of the weights differ")
            on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
            state[key] = counts[0].to(shard.tensor.device) if on_device else counts[0].clone()
            continue
        flat = torch.zeros(shard.tensor.numel(), dtype=shard.tensor.dtype)
        for piece in shard.fragments:
            whole = file.tensor(f"optimizer/{piece.name}/{key}", shapes[piece.name]).flatten()
            flat[piece.offset : piece.offset + piece.count] = whole[piece.start : piece.start + piece.count]
        state[key] = torch.empty_like(shard.tensor, requires_grad=False).copy_(flat.view(shard.tensor.shape))
    return state


def _buffers(method: Method) -> dict[str, Tensor]:
    """The state that is not a parameter: batch statistics, a center."""
    weights = {name for name, _ in method.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in method.state_dict().items() if name not in weights}


def _shape(parameter: nn.Parameter) -> torch.Size:
    """The full shape of a weight, also if ZeRO 3 has replaced it by an empty tensor."""
    return getattr(parameter, "ds_shape", parameter.shape)


def _on_host(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU."""
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


class ReplicatedLayout:
    """Nothing is sharded: one process, or ZeRO stage 0."""

    def __init__(self, method: Method, optimizer: torch.optim.Optimizer, gather: Gather, is_main: bool = True) -> None:
        self.optimizer, self.gather, self.writing, self.is_main = optimizer, gather, gather, is_main
        self.shards = replicated_shards(method)

    def add_to_main(self, flat: Tensor) -> None:
        """Does nothing: all ranks hold the same."""

    def written(self) -> None:
        """Does nothing: there are no copies."""
