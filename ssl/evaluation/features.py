"""Features of a frozen backbone: images in, one float32 row for each image out."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

# The statistics of ImageNet-1k, timm's and torchvision's default.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Pixels = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Features:
    """Features `x` float32[N, D] and labels `y` int64[N] (-1: unknown), on one device."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1]:
            raise ValueError(f"features are x[N, D] and y[N], got {tuple(self.x.shape)} and {tuple(self.y.shape)}")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Features":
        return Features(self.x[index], self.y[index])

    @staticmethod
    def concatenated(parts: Sequence["Features"]) -> "Features":
        return Features(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode without gradients; each module's own training flag comes back afterwards."""
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.no_grad():
            yield backbone
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(backbone: nn.Module) -> torch.device:
    """Where the backbone's parameters live (the CPU for one without any)."""
    return next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))


def resize_center_crop(pixels: Pixels, size: int | None, device: torch.device | str = "cpu") -> Tensor:
    """Images uint8[N, H, W, 3], or a list of uint8[Hi, Wi, 3], as float32[N, 3, size, size] in [0, 1] on `device`.

    The shorter side is resized to `size` (bilinear, anti-aliased), then the centre is cropped. Images of one shape
    travel as bytes and are resized on the device; ragged ones are squared one by one before they travel.
    `size=None` leaves images of one shape as they are.
    """
    if not isinstance(pixels, np.ndarray):
        shapes = {image.shape for image in pixels}
        if len(shapes) == 1:
            pixels = np.stack(pixels)
        elif size is None:
            raise ValueError(f"images of {len(shapes)} different shapes need a size to be brought to")
        else:
            from wildfern.ssl.data import square

            pixels = np.stack([square(image, size) for image in pixels])
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise ValueError(f"images are uint8[N, H, W, 3], got {pixels.dtype}{list(pixels.shape)}")
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device, non_blocking=True)
    images = images.permute(0, 3, 1, 2).float().div_(255)
    height, width = images.shape[2:]
    if size is None or height == width == size:
        return images
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    images = F.interpolate(images, shape, mode="bilinear", align_corners=False, antialias=True)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float[N, 3, H, W] less `mean`, divided by `std`, channel by channel."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return (images - mean) / std


def extract_features(
    backbone: nn.Module,
    chunks: Iterable[tuple[Pixels, NDArray[np.int64] | None]],
    *,
    size: int | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    precision: Precision = "fp32",
) -> Features:
    """Run the frozen backbone over chunks of (images, labels); a chunk without labels gives labels -1.

    Images are uint8[N, H, W, 3] or a list of uint8[Hi, Wi, 3]; see `resize_center_crop` for how they come to `size`. The
    backbone returns one row for each image (timm: `num_classes=0`); it is moved to `device`, by default where it is.
    Raises ValueError for a backbone that returns anything else, and when there is no image at all.
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
            labels.append(torch.as_tensor(np.asarray(chunk_labels), dtype=torch.int64, device=device))
            for start in range(0, len(pixels), batch_size):
                images = resize_center_crop(pixels[start : start + batch_size], size, device)
                row = backbone(normalized(images, mean, std))
                if not isinstance(row, Tensor) or row.ndim != 2:
                    shape = list(row.shape) if isinstance(row, Tensor) else type(row).__name__
                    raise ValueError(f"a backbone returns one row [N, D] an image (num_classes=0), got {shape}")
                rows.append(row.float())
    if not rows:
        raise ValueError("there are no images to extract features from")
    return Features(torch.cat(rows), torch.cat(labels))
