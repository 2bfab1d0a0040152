"""A method's state must have its final form before the first step, or a checkpoint of it could not be resumed."""

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from wildfern.ssl.methods.base import Method


def check_state(method: Method) -> None:
    """Raise ValueError for state that checkpoints cannot hold: lazy parameters, and extra state."""
    for name, value in _state(method).items():
        where = f"{type(method).__name__}: {name}"
        if is_lazy(value):
            raise ValueError(f"{where} has no shape yet; checkpoints need the final one, so do not use lazy modules")
        if name.rpartition(".")[2] == "_extra_state":
            raise ValueError(f"{where} (from get_extra_state) cannot be saved; register a buffer instead")


class FixedState:
    """Compares the names and shapes of a method's state with those before the first step."""

    def __init__(self, method: Method) -> None:
        check_state(method)
        self._method, self._shapes = method, _shapes(method)

    def check(self) -> None:
        """Raise ValueError if state was added, removed or resized."""
        now = _shapes(self._method)
        if now == self._shapes:
            return
        changed = sorted(name for name in now.keys() | self._shapes.keys() if now.get(name) != self._shapes.get(name))
        raise ValueError(
            f"{type(self._method).__name__} has changed the shape or the names of its state while training: {changed[0]} "
            f"({len(changed)} in total). Such a run could not be resumed: create all parameters and buffers in __init__(), in "
            "their final shape"
        )


def _shapes(method: Method) -> dict[str, torch.Size]:
    # ZeRO stage 3 replaces a weight by an empty tensor, with its shape in `ds_shape`.
    return {name: getattr(value, "ds_shape", value.shape) for name, value in _state(method).items()}


def _state(method: Method) -> dict[str, Tensor]:
    state = method.state_dict(keep_vars=True)
    for name, teacher in method.teachers().items():
        state |= {f"{name}.{key}": value for key, value in teacher.state_dict(keep_vars=True).items()}
    return state
