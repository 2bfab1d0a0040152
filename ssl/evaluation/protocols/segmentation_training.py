"""Training of segmenters on images with masks: random windows of them, the loss and the loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.data.resize import resize
from wildfern.ssl.evaluation.evaluator import MaskedImage
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized
from wildfern.ssl.evaluation.protocols.probe_training import cosine
from wildfern.ssl.evaluation.protocols.segmentation import Region
from wildfern.ssl.losses.dice import dice_loss, dice_sums
from wildfern.ssl.models.segmentation_settings import SegmentationSettings
from wildfern.ssl.tracking.progress import Progress

WARMUP = 0.1  # share of the steps in which the learning rate rises


class TrainImage(NamedTuple):
    """At the scale of the network and at least as large as a window, all uint8; `target` is 255 in objects, `inside` 0 or 1."""

    pixels: NDArray[np.uint8]  # [H, W, C]
    target: NDArray[np.uint8]  # [H, W]
    inside: NDArray[np.uint8]  # [H, W], where masks count


class Windows(NamedTuple):
    """float32 tensors: images [n, C, S, S] in [0, 1]; target [n, S, S] in [0, 1]; inside [n, S, S], 0 or 1."""

    images: Tensor
    target: Tensor
    inside: Tensor


def train_image(
    image: MaskedImage, settings: SegmentationSettings, region: Region = "field_of_view", channels: int = 3
) -> TrainImage:
    """The image resized as for segmentation, and padded by reflection to a window; its mask too, anti-aliased, not rounded.

    A gray image is repeated to three channels. Raises ValueError for another number of channels.
    """
    pixels = image.pixels.repeat(3, axis=2) if image.pixels.shape[2] == 1 and channels == 3 else image.pixels
    if pixels.shape[2] != channels:
        raise ValueError(f"images have {pixels.shape[2]} channels, but {channels} are normalized for this backbone")
    inside = image.region if region == "field_of_view" and image.region is not None else np.ones_like(image.mask)
    layers = [pixels, image.mask[..., None] * np.uint8(255), inside[..., None] * np.uint8(255)]
    height, width = image.mask.shape
    if (scale := settings.scale(height, width)) != 1:
        layers = [resize(layer, (max(1, round(width * scale)), max(1, round(height * scale)))) for layer in layers]
    missing = [max(0, settings.size - side) for side in layers[0].shape[:2]]
    around = (*((each // 2, each - each // 2) for each in missing), (0, 0))
    pixels, target, inside = (np.pad(layer, around, "reflect") if any(missing) else layer for layer in layers)
    return TrainImage(pixels, target[..., 0], (inside[..., 0] >= 128).astype(np.uint8))


@dataclass(frozen=True)
class TrainWindows:
    """Random squares of train images, uniform over images and places: a pure function of seed, step and place in the batch."""

    images: Sequence[TrainImage]
    size: int
    seed: int

    def __call__(self, step: int, positions: NDArray[np.int64], device: torch.device | str = "cpu") -> Windows:
        draws = uniform(fold(np.uint64(key("segmentation windows", self.seed, step)), positions), 3)
        found: list[list[NDArray[np.uint8]]] = [[], [], []]
        for number, down, right in draws:
            layers = self.images[int(number * len(self.images))]
            height, width = layers.target.shape
            top, left = int(down * (height - self.size + 1)), int(right * (width - self.size + 1))
            for parts, layer in zip(found, layers, strict=True):
                parts.append(layer[top : top + self.size, left : left + self.size])
        images, target, inside = (torch.from_numpy(np.stack(parts)).to(device).float() for parts in found)
        return Windows(images.permute(0, 3, 1, 2).div(255), target.div(255), inside)


def segmentation_loss(logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Binary cross entropy, the mean over the pixels inside, and soft Dice loss of these of all windows: all float[N, S, S]."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    sums = dice_sums(logits.sigmoid() * inside, target * inside)
    return (entropy * inside).sum() / inside.sum().clamp(min=1) + dice_loss(sums)


@dataclass(frozen=True)
class Training:
    """How segmenters are trained: `steps` batches of windows; learning rates rise over `WARMUP` and fall to 0 by a cosine."""

    windows: TrainWindows
    steps: int
    batch_size: int
    preprocessing: Preprocessing
    device: torch.device
    progress: Progress

    def batch(self, step: int) -> Windows:
        return self.windows(step, np.arange(self.batch_size), self.device)

    def normalized(self, windows: Windows) -> Tensor:
        return normalized(windows.images, self.preprocessing.mean, self.preprocessing.std)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.preprocessing.precision == "bf16")

    def train(
        self,
        optimizer: torch.optim.Optimizer,
        logits: Callable[[Tensor], Tensor],
        augment: Callable[[Windows, int], Windows] = lambda windows, step: windows,
        what: str = "",
    ) -> Tensor:
        """The loss of each step, float32[steps, R], of R segmenters without common weights that are trained side by side.

        `logits`: normalized windows float[N, C, S, S] -> float[R, N, S, S]. `what` describes the training for the progress.
        """
        peaks = [group["lr"] for group in optimizer.param_groups]
        losses = []
        with _deterministic_convolutions():
            for step in range(self.steps):
                self.progress.count(step, self.steps, "steps", what)
                factor = min(1.0, (step + 1) / (WARMUP * self.steps + 1)) * cosine(step, self.steps)
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = factor * peak
                windows = augment(self.batch(step), step)
                with self.autocast():
                    found = logits(self.normalized(windows))
                each = torch.stack([segmentation_loss(one.float(), windows.target, windows.inside) for one in found])
                optimizer.zero_grad()
                each.sum().backward()
                optimizer.step()
                losses.append(each.detach())
        return torch.stack(losses).cpu()


def losses_words(losses: Tensor) -> str:
    """What to say of the losses float[steps] of a training."""
    few = max(1, len(losses) // 10)
    return f"mean train loss {losses[:few].mean():.3f} in the first tenth of the steps, {losses[-few:].mean():.3f} in the last"


@contextmanager
def _deterministic_convolutions() -> Iterator[None]:
    """Let cuDNN choose algorithms that repeat their results bit for bit."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
