"""Whether bfloat16 is fast on a device, and a check for convolutions whose bfloat16 gradient is wrong on CPUs.

The weight gradient of a strided bfloat16 3 × 3 convolution over a single pixel looks partly uninitialized: often right, else up
to 1e36 or NaN (seen with torch 2.15 on an AVX-512 processor; cause unknown). It occurs in residual networks if images are
so small that a feature map has shrunk to one pixel before the last stride.
"""

import torch
from torch import Tensor, nn


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic. Others emulate it, on CPUs many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and supported()


def strided_over_one_pixel(backbone: nn.Module, sizes: list[int], channels: int = 3) -> list[tuple[str, int]]:
    """Convolutions (name, size of the view) that would stride over a 1 × 1 feature map, for views of these sizes."""
    found = []

    def look(name: str, size: int) -> object:
        def hook(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
            if max(inputs[0].shape[-2:]) == 1 and max(module.stride) > 1 and max(module.kernel_size) > 1:
                found.append((name, size))

        return hook

    training = backbone.training
    backbone.eval()
    for size in sorted(set(sizes)):
        hooks = [
            module.register_forward_pre_hook(look(name, size))
            for name, module in backbone.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        with torch.no_grad():
            backbone(torch.zeros(1, channels, size, size, device=next(backbone.parameters()).device))
        for hook in hooks:
            hook.remove()
    backbone.train(training)
    return found
