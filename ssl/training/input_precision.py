"""Whether views may be rounded to bfloat16 before the method gets them.

Under autocast a convolution or linear layer rounds its input to bfloat16 anyway. Views that only go to such a layer can be
rounded when they are made: this saves memory and time and changes no bit. A method whose loss reads the views (for instance the
pixels that MAE reconstructs), or a backbone that computes something else first, needs them in float32.
"""

import torch
from torch import Tensor, nn

from wildfern.ssl.augmentation import Views
from wildfern.ssl.methods.base import Method
from wildfern.ssl.training.engine import Precision


def input_dtype(method: Method, precision: Precision, views: Views) -> torch.dtype:
    """dtype of the views: bfloat16 if the method only feeds them to its backbone and bf16 training stays bit-identical."""
    if precision != "bf16" or method.needs.float32_views:
        return torch.float32
    sizes = [size for _, size in views.shape]
    return torch.bfloat16 if rounds_its_input(method.backbone, sizes, views.channels) else torch.float32


def rounds_its_input(backbone: nn.Module, sizes: list[int], channels: int = 3) -> bool:
    """Whether, under autocast, float32 noise and the same noise in bfloat16 give identical outputs, for views of these sizes.

    Compares the outputs of all layers, since pooling could hide differences. The backbone and torch's generator are not changed.
    """
    first = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    training = backbone.training
    backbone.eval()
    same = True
    for size in sorted(set(sizes)):
        noise = (torch.randn(1, channels, size, size, generator=generator) + 0.5).to(first.device)
        whole, rounded = (_results(backbone, images) for images in (noise, noise.to(torch.bfloat16)))
        same = same and all(torch.equal(a, b) for a, b in zip(whole, rounded, strict=True))
    backbone.train(training)
    return same


@torch.no_grad()
def _results(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """Outputs of all layers that return a tensor, and of the backbone, under autocast."""
    results: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple, result: object) -> None:
        if isinstance(result, Tensor) and not isinstance(module, nn.Identity):  # which returns the images themselves
            results.append(result.clone())  # a later layer may work in place

    hooks = [module.register_forward_hook(note) for module in backbone.modules()]
    with torch.autocast(images.device.type, torch.bfloat16):
        backbone(images)
    for hook in hooks:
        hook.remove()
    return results
