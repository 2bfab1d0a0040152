"""The number of features of a network, from a forward pass without values."""

import copy

import torch
from torch import Tensor, nn


def measure_width(network: nn.Module, image: tuple[int, int, int], name: str) -> int:
    """D of a network that maps float[N, C, H, W] to float[N, D]; `image` is (C, H, W).

    Runs a copy on torch's meta device, without memory or random numbers. A network that cannot run there (because it reads
    values) runs on one image of zeros in eval mode. The network itself is not changed.
    Raises ValueError, naming the network, if it returns anything else or does not take such images.
    """
    try:
        result = _run(meta_copy(network), image, "meta")
    except Exception as on_meta:  # of an operation without a meta kernel
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        if device.type == "meta":
            raise ValueError(_cannot_run(name, image, on_meta)) from on_meta
        try:
            result = _run_here(network, image, device)
        except Exception as error:  # networks raise any error for images that they cannot take
            raise ValueError(_cannot_run(name, image, error)) from error
    if not isinstance(result, Tensor) or result.ndim != 2:
        raise ValueError(
            f"{name} returns {_described(result)} for N images, but a backbone returns one vector for each, [N, D]: leave "
            "arguments such as global_pool and features_only at their defaults, or choose another model"
        )
    return result.shape[1]


def meta_copy(network: nn.Module) -> nn.Module:
    """The same network in eval mode with all parameters and buffers on the meta device."""
    memo: dict[int, object] = {}
    for p in network.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo).eval()


@torch.no_grad()
def _run(network: nn.Module, image: tuple[int, int, int], device: str) -> object:
    with torch.device(device):
        return network(torch.zeros(2, *image))


@torch.no_grad()
def _run_here(network: nn.Module, image: tuple[int, int, int], device: torch.device) -> object:
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            return network(torch.zeros(1, *image, device=device))
    finally:
        for module, mode in training.items():
            module.training = mode


def _cannot_run(name: str, image: tuple[int, int, int], error: Exception) -> str:
    channels, height, width = image
    return (
        f"{name} cannot run on images of {height} × {width} px with {channels} channels: {_first_line(error)}; choose another "
        "size (views.size, model.arguments.img_size)"
    )


def _described(result: object) -> str:
    if isinstance(result, Tensor):
        return "[" + ", ".join(["N", *map(str, result.shape[1:])]) + "]"
    if isinstance(result, list | tuple):
        return f"a {type(result).__name__} of {len(result)}"
    return f"a {type(result).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
