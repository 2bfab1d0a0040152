"""The GPU that a stream renders on."""

import torch
import triton  # noqa: F401  so that a missing package is reported when the stream is made, not at the first batch


def find_gpu(device: str) -> torch.device:
    """The GPU "cuda:N", or for "cuda" the current one of this thread; ValueError if there is none."""
    if not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} needs a GPU, and torch finds none (torch.cuda.is_available() is False); "
            "device='cpu' renders the same images"
        )
    _, colon, number = device.partition(":")
    index, count = int(number) if colon else torch.cuda.current_device(), torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"device={device!r} does not exist: this machine has {count} GPU(s), numbered from cuda:0")
    return torch.device("cuda", index)
