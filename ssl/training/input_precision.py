"""Whether a backbone loses nothing when it is given views in bfloat16.

Under autocast a convolution or linear layer rounds what it is given to bfloat16 anyway, so that views which are rounded before
save memory and the rounding, and change no bit. A backbone that does something else first may tell the difference.
"""

import torch
from torch import Tensor, nn

from wildfern.ssl.augmentation import Views
from wildfern.ssl.training.engine import Precision


def input_dtype(backbone: nn.Module, precision: Precision, views: Views) -> torch.dtype:
    """In which type the backbone is best given these views: bfloat16 where a training in bf16 comes out the same to the bit."""
    sizes = [size for _, size in views.shape]
    rounded = precision == "bf16" and rounds_its_input(backbone, sizes, views.channels)
    return torch.bfloat16 if rounded else torch.float32


def rounds_its_input(backbone: nn.Module, sizes: list[int], channels: int = 3) -> bool:
    """Whether, under autocast to bfloat16, noise in float32 and the same rounded give the same bits, for views of these sizes.

    All layers' results are compared, for a pooled end hides much. The backbone is left as it was, and so is torch's generator.
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
    """What each layer that hands on a tensor makes of it, and the backbone at the end, under autocast."""
    results: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple, result: object) -> None:
        if isinstance(result, Tensor) and not isinstance(module, nn.Identity):  # that hands on the images themselves
            results.append(result.clone())  # a later layer may work in place

    hooks = [module.register_forward_hook(note) for module in backbone.modules()]
    with torch.autocast(images.device.type, torch.bfloat16):
        backbone(images)
    for hook in hooks:
        hook.remove()
    return results
