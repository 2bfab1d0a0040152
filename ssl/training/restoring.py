"""Loading a saved state of training into a method and an engine, whichever engine, ZeRO stage and number of ranks wrote it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wildfern.ssl.methods.base import Method
from wildfern.ssl.models import Backbone
from wildfern.ssl.training.fitting_state import GROUPS, STEP, StateMismatch, check_optimizer, check_tensors
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.optimizer_groups import counted_keys, set_group_numbers
from wildfern.ssl.training.state_file import FILE, SavedState, open_state
from wildfern.ssl.training.state_layout import Shard, StateLayout, full_shape
from wildfern.ssl.training.state_parts import buffers, frozen, online_parts, weights

ONLINE = ("probe/", "online_knn/")  # roots of online evaluations, which a resumed run may add or drop


def restore(folder: Path, method: Method, layout: StateLayout, probe: OnlineEvaluation | None = None) -> None:
    """Load the state in a checkpoint folder into the method, the optimizer, the teachers and the probe; called on every rank.

    A rank reads only what it holds. An online evaluation that was not saved keeps its initial state. Raises ValueError if the
    state is missing, damaged or of another network or optimizer, before anything is loaded.
    """
    try:
        with open_state(folder, layout.rank, layout.world_size) as state:
            _restore(_Reading(state, method), method, layout, probe)
    except StateMismatch as error:
        where = folder / FILE if (folder / FILE).exists() else folder
        raise ValueError(f"{where} does not fit this recipe: {error}") from error


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
    """A saved state: tensors by their current names, with checks of their shapes."""

    def __init__(self, state: SavedState, method: Method) -> None:
        self._state = state
        self._name_in_file = current_names(state.keys(), method)
        self.names = set(self._name_in_file)
        self._keys: defaultdict[str, set[str]] | None = None

    def described(self, name: str) -> tuple[list[int], str]:
        """Shape and type of a tensor, without reading it."""
        return self._state.described(self._name_in_file[name])

    def tensor(self, name: str, shape: Sequence[int]) -> Tensor:
        self._check(name, shape)
        return self._state.tensor(self._name_in_file[name])

    def piece(self, name: str, shape: Sequence[int], start: int, count: int) -> Tensor:
        """Elements of the flattened tensor of this shape."""
        self._check(name, shape)
        return self._state.piece(self._name_in_file[name], start, count)

    def _check(self, name: str, shape: Sequence[int]) -> None:
        if name not in self.names:
            raise StateMismatch(f"{name} is missing")
        if (found := list(self.described(name)[0])) != list(shape):
            raise StateMismatch(f"{name} is {found}, not {list(shape)}")

    def group_numbers(self) -> dict[str, Tensor]:
        """Numbers of the optimizer's parameter groups."""
        names = (name for name in self.names if name.startswith(GROUPS))
        return {name.removeprefix(GROUPS): self._state.tensor(name) for name in sorted(names)}

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
    shapes = {name: full_shape(p) for name, p in method.named_parameters()}
    _check(file, method, layout, probe, shapes)
    for name, weight in weights(method).items():
        shape = full_shape(weight)
        layout.fill(weight, partial(file.tensor, name, shape), partial(file.piece, name, shape))
    layout.written()
    for name, buffer in buffers(method).items():
        buffer.copy_(file.tensor(name, buffer.shape))
    for shard in layout.shards:
        layout.optimizer.state[shard.tensor] = _shared_out(file, shard, shapes, layout.optimizer)
    _restore_groups(file, layout)
    for part in online_parts(probe):
        if any(name.startswith(part.root) for name in file.names):
            for name, value in part.state_dict().items():
                value.copy_(file.tensor(f"{part.root}{name}", value.shape))


def _check(
    file: _Reading, method: Method, layout: StateLayout, probe: OnlineEvaluation | None, shapes: dict[str, torch.Size]
) -> None:
    """Raise StateMismatch for anything that `_restore` could not load."""
    expected: dict[str, Tensor | tuple[torch.Size, torch.dtype]] = {
        name: (full_shape(weight), weight.dtype) for name, weight in weights(method).items()
    }
    unchanged = frozen(method)
    expected |= buffers(method) | unchanged
    online = {root: {name for name in file.names if name.startswith(root)} for root in ONLINE}
    known = [part for part in online_parts(probe) if online.pop(part.root)]
    file.names -= set().union(*online.values())  # of a run that had others
    for part in known:
        expected |= {f"{part.root}{name}": value for name, value in part.state_dict().items()}
    check_tensors(file, expected)
    for part in known:
        part.check_state(
            {name: file.tensor(f"{part.root}{name}", value.shape) for name, value in part.state_dict().items()}
        )
    for name, value in unchanged.items():
        if not torch.equal(file.tensor(name, value.shape), value):
            raise StateMismatch(
                f"the weights of the frozen {name.split('/')[1]} have changed since the run was started: restore them"
            )
    check_optimizer(file, layout.optimizer, layout.shards, shapes)


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
            read = file.piece(f"optimizer/{piece.name}/{key}", shapes[piece.name], piece.start, piece.count)
            flat[piece.offset : piece.offset + piece.count] = read
        state[key] = torch.empty_like(shard.tensor, requires_grad=False).copy_(flat.view(shard.tensor.shape))
    return state
