"""How long training takes, expected from FLOPs before the first step."""

import time

import torch

from wildfern.launch.device import choose_device
from wildfern.ssl.training.precision import computes_in_bf16

# Share of the speed of large matrix products that training steps reach: on CPUs 0.35 to 0.85 for ResNets and vision
# transformers in float32 and bfloat16.
UTILIZATION = 0.5
SIDE = 1024


def matrix_flops(device: torch.device, precision: str, seconds: float = 0.05) -> float:
    """FLOP/s of matrix products on a device in the precision of training, measured for `seconds`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = SIDE if device.type == "cpu" else 8 * SIDE
    one = torch.ones(side, side, dtype=dtype, device=device)
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    one @ one  # the first product allocates
    finish()
    began, products = time.perf_counter(), 0
    while not products or time.perf_counter() - began < seconds:
        one @ one
        finish()
        products += 1
    return 2 * side**3 * products / (time.perf_counter() - began)


def cpu_flops() -> float | None:
    """FLOP/s that training is expected to reach on this CPU; None on a machine with a GPU."""
    device = choose_device("auto")
    if device.type != "cpu":
        return None
    return UTILIZATION * matrix_flops(device, "bf16" if computes_in_bf16(device) else "fp32")


def rough_duration(seconds: float) -> str:
    """A rough duration in words: `40 seconds`, `12 minutes`, `5.5 hours`, `6 days`, `3 years`."""
    units = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
    name, size = next(((name, size) for name, size in units if seconds >= 1.5 * size), units[-1])
    number = seconds / size
    text = f"{number:.2g}" if number < 10 else f"{number:,.0f}"
    return f"{text} {name}{'' if text == '1' else 's'}"
