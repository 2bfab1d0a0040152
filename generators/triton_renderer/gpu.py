"""The GPU that a stream draws on."""

import torch
import triton  # noqa: F401  so that a missing one is met when a GPU is asked for, not at the first batch


def find_gpu(device: str) -> torch.device:
    """The GPU "cuda:N", or for "cuda" the current one of this thread; ValueError if there is none."""
    if not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} wants a GPU that torch can use, and it finds none (torch.cuda.is_available() is False); "
            "device='cpu' draws the same images"
        )
    _, colon, number = device.partition(":")
    index, count = int(number) if colon else torch.cuda.current_device(), torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"device={device!r} is not there: this machine has {count} GPU(s), counted from cuda:0")
    return torch.device("cuda", index)
