"""The device that `training.device` names."""

import torch

from wildfern.launch.errors import RunError


def choose_device(name: str) -> torch.device:
    """The device of `training.device`; `auto` is the GPU if there is one. Raises RunError for a missing device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise RunError(f"training.device is {name}, but this machine has none that torch can use")
    return torch.device(name)
