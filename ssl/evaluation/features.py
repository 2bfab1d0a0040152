"""Extract features, tokens and maps of a frozen backbone as float32 tensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wildfern.ssl.evaluation.evaluator import Chunk, Features
from wildfern.ssl.evaluation.labeled_chunks import LabeledChunk, Labels, label_array
from wildfern.ssl.evaluation.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Pixels,
    Precision,
    Preprocessing,
    normalized,
    resize_center_crop,
    resize_center_crop_masks,
)

# Images per chunk of a stream: the maps of a ResNet-50 at 224 px take 6 MB each.
STREAMED = 32


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode without gradients; each module's own training flag is restored afterwards."""
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.no_grad():
            yield backbone
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(backbone: nn.Module) -> torch.device:
    """The device of the backbone's parameters (the CPU if it has none)."""
    return next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))


def extract_features(
    backbone: nn.Module,
    chunks: Iterable[tuple[Pixels, Labels | None]],
    *,
    size: int | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    precision: Precision = "fp32",
    interpolation: Interpolation = "bilinear",
    done: Callable[[int], None] = lambda images: None,
    targets: bool = False,
) -> Features:
    """Run the frozen backbone over chunks of (images, labels as of `Features`); a chunk without labels gives labels -1.

    Images are uint8[N, H, W, C] or a list of uint8[Hi, Wi, C], preprocessed to `size` by `resize_center_crop`. The backbone
    returns one row per image (timm: `num_classes=0`); it is moved to `device`, by default its own. `done` gets the number of
    images of the present chunk that are done, after each batch. `targets`: the labels are numbers, float[N] or float[N, P].
    Raises ValueError for a backbone that returns anything else, and if there are no images.
    """
    device = torch.device(device) if device is not None else device_of(backbone)
    backbone.to(device)
    rows, labels = [], []
    with frozen(backbone), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for pixels, chunk_labels in chunks:
            if chunk_labels is None:
                chunk_labels = np.full(len(pixels), -1)
            if len(chunk_labels) != len(pixels):
                raise ValueError(f"a chunk of {len(pixels)} images has {len(chunk_labels)} labels")
            labels.append(_on_device(chunk_labels, targets, device))
            for start in range(0, len(pixels), batch_size):
                images = resize_center_crop(pixels[start : start + batch_size], size, device, interpolation)
                row = backbone(normalized(images, mean, std))
                if not isinstance(row, Tensor) or row.ndim != 2:
                    shape = list(row.shape) if isinstance(row, Tensor) else type(row).__name__
                    raise ValueError(f"a backbone returns one row [N, D] an image (num_classes=0), got {shape}")
                rows.append(row.float())
                done(min(start + batch_size, len(pixels)))
    if not rows:
        raise ValueError("there are no images to extract features from")
    return Features(torch.cat(rows), torch.cat(labels))


def method_of(backbone: nn.Module, what: Literal["tokens", "maps"]) -> Callable[[Tensor], Any]:
    """The backbone's method. Raises ValueError if it has none."""
    method = getattr(backbone, what, None)
    if method is None:
        raise ValueError(f"{type(backbone).__name__} has no method {what}(images): wrap the network in a Backbone")
    return method


def stream(
    backbone: nn.Module,
    chunks: Iterable[LabeledChunk],
    what: Literal["tokens", "maps"],
    preprocessing: Preprocessing,
    batch_size: int = STREAMED,
    targets: bool = False,
) -> Iterator[Chunk]:
    """Tokens or maps of the frozen backbone, `batch_size` images at a time; `targets`: the labels are numbers.

    Raises ValueError for a backbone that has no method of that name.
    """
    compute = method_of(backbone, what)
    size, device = preprocessing.size, preprocessing.device
    device = torch.device(device) if device is not None else device_of(backbone)
    backbone.to(device)
    autocast = preprocessing.precision == "bf16"
    for chunk in chunks:
        for start in range(0, len(chunk.labels), batch_size):
            part = slice(start, start + batch_size)
            images = normalized(
                resize_center_crop(chunk.pixels[part], size, device, preprocessing.interpolation),
                preprocessing.mean,
                preprocessing.std,
            )
            # Entered for each batch, since the caller may train a head in between.
            with frozen(backbone), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                x = compute(images)
            labels = _on_device(chunk.labels[part], targets, device)
            masks = None if chunk.masks is None else resize_center_crop_masks(chunk.masks[part], size, device)
            yield Chunk(x, labels, masks)


def _on_device(labels: Labels, targets: bool, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(labels, np.float32) if targets else label_array(labels), device=device)
