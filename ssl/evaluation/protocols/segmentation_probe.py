"""Linear probe of pixels: a linear layer on upsampled maps of a frozen backbone (DINOv2: Oquab et al., 2023, section 7.4)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import MaskedImage, MaskedImages
from wildfern.ssl.evaluation.features import frozen, method_of
from wildfern.ssl.evaluation.metrics.classification_scores import joined
from wildfern.ssl.evaluation.metrics.segmentation_thresholds import best_threshold
from wildfern.ssl.evaluation.protocols.probe_training import MOST_RATE
from wildfern.ssl.evaluation.protocols.segmentation import FIXED, REGION_WORDS, Region
from wildfern.ssl.evaluation.protocols.segmentation_training import Training, losses_words
from wildfern.ssl.evaluation.protocols.trained_segmentation import TrainedSegmentation, maps_of_window

MEASURED = 64  # windows from which the mean and deviation of each channel are measured
FLAT = 1e-6  # a channel whose deviation is this share of the largest one, or less, is constant


class PixelProbe(nn.Module):
    """A logit for each pixel from the last maps of a frozen backbone: float[N, C, S, S] -> float[N, S, S] by `segment`.

    Channels are standardized with `means` and `factors`, float[C] of each map; constant ones have the factor 0. A linear layer on
    the maps, upsampled to the largest one and concatenated, is the sum of a layer on each map, upsampled. It begins at 0.
    """

    def __init__(self, backbone: nn.Module, means: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
        super().__init__()
        self.backbone, self.means, self.factors = backbone, means, factors
        layers = (nn.utils.skip_init(nn.Conv2d, len(mean), 1, 1, bias=not n) for n, mean in enumerate(means))
        self.linear = nn.ModuleList(layers).to(means[0].device)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def standardized(self, images: Tensor) -> list[Tensor]:
        """The maps float32[N, C, H, W] of windows, without gradient."""
        found = last_maps(self.backbone, images, len(self.means))
        return [
            (one - mean[:, None, None]) * factor[:, None, None]
            for one, mean, factor in zip(found, self.means, self.factors, strict=True)
        ]

    def logits(self, maps: Sequence[Tensor], size: int) -> Tensor:
        """float[N, size, size] of `standardized` maps."""
        side = max(one.shape[-1] for one in maps)
        layers = zip(self.linear, maps, strict=True)
        total = torch.stack([upsampled(layer(one)[:, 0].float(), side) for layer, one in layers]).sum(0)
        return upsampled(total, size)

    def segment(self, images: Tensor) -> Tensor:
        return self.logits(self.standardized(images), images.shape[-1])


def last_maps(backbone: nn.Module, images: Tensor, layers: int) -> list[Tensor]:
    """The last maps float32[N, C, H, W] of the frozen backbone. Raises ValueError if it has fewer."""
    with frozen(backbone):
        found = method_of(backbone, "maps")(images)
    if len(found) < layers:
        raise ValueError(f"layers: the last {layers} maps are wanted, and this network has {len(found)}")
    return [one.float() for one in found[-layers:]]


def upsampled(x: Tensor, side: int) -> Tensor:
    """float32[N, h, w] -> float32[N, side, side], bilinear, without aligned corners; its gradient is the same in each call."""
    if x.shape[1:] == (side, side):
        return x
    with torch.autocast(x.device.type, enabled=False):
        rows, columns = (
            F.interpolate(torch.eye(n, device=x.device)[None], side, mode="linear")[0] for n in x.shape[1:]
        )
        return rows.T @ x @ columns


@register("evaluator", "segmentation_probe")
class SegmentationProbe(TrainedSegmentation):
    """Linear layer per pixel of a frozen backbone, trained on a few images with masks: mean Dice and scores of `segmentation`.

    layers: the number of last maps, of stages or blocks, that are upsampled to the largest of them and concatenated. The
        last map of a network with stages is too coarse for thin objects: take 4 or so. Maps of a vision transformer are those
        before its last norm.
    learning_rate: of AdamW, of several the one with the best Dice on the share `holdout` of the drawn train images, which then
        trains on all of them. shots: train images (null: all), drawn `seeds` times, from `seed` on; scores are means over draws.
    size: side of the windows in pixels (null: that of the backbone's images). scale: by which images are resized (null: as in the
        training of a run that segments, else 1). region, overlap: as of `segmentation`; also in training, pixels outside of the
        field of view do not count.

    Each channel is standardized by mean and deviation over train windows, where DINOv2 has batch normalization. `dice` and most
    others are at the threshold 0.5, `dice_validation_threshold` at the best one on train.
    """

    def __init__(
        self,
        *,
        layers: int = 1,
        steps: int = 500,
        batch_size: int = 16,
        learning_rate: float | tuple[float, ...] = 1e-2,
        holdout: float = 0.2,
        weight_decay: float = 1e-4,
        shots: int | None = None,
        seeds: int = 1,
        size: int | None = None,
        scale: float | None = None,
        region: Region = "field_of_view",
        overlap: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(steps, batch_size, weight_decay, shots, seeds, size, scale, region, overlap, seed)
        self.rates = tuple(sorted(set(learning_rate if isinstance(learning_rate, tuple | list) else (learning_rate,))))
        if not self.rates or any(not 0 < rate <= MOST_RATE for rate in self.rates):
            raise ValueError(f"learning_rate holds numbers above 0, up to {MOST_RATE:g}, got {learning_rate}")
        if layers < 1:
            raise ValueError(f"layers is a number of maps of at least 1, got {layers}")
        if not 0 < holdout <= 0.5:
            raise ValueError(f"holdout is a share of the drawn train images in (0, 0.5], got {holdout}")
        if len(self.rates) > 1 and shots == 1:
            raise ValueError("learning_rate: give one, as of one train image none can be held out to choose")
        self.probed, self.holdout = layers, holdout

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        if (maps := len(maps_of_window(backbone, self._size(size)))) < self.probed:
            raise ValueError(f"layers: the last {self.probed} maps are wanted, and this network has {maps}")

    def fit(self, train: MaskedImages, images: Sequence[MaskedImage], seed: int, what: str) -> tuple[nn.Module, str]:
        rate, chosen = self.rates[0], ""
        if len(self.rates) > 1:
            rate, chosen = self._choose(train, images, seed, what)
        training = self.training(train, images, seed)
        (probe,), losses = self._probes(train.backbone, training, (rate,), f"{what}training on {len(images)} images")
        if not losses.isfinite().all() or not _is_finite(probe):
            raise ValueError(f"the probe diverged at learning rate {rate:g}: lower learning_rate")
        return probe, joined(chosen, losses_words(losses[:, 0]))

    def _choose(self, train: MaskedImages, images: Sequence[MaskedImage], seed: int, what: str) -> tuple[float, str]:
        """The rate with the best mean Dice on images that are held out, the lowest of equals, and how it was found."""
        if len(images) < 2:
            raise ValueError("learning_rate: give one, as train has one image, and none can be held out to choose")
        draws = uniform(fold(np.uint64(key("segmentation held out", seed)), np.array([i.item for i in images])), 1)
        order = draws[:, 0].argsort()
        count = max(1, round(self.holdout * len(images)))
        held, fitted = ([images[i] for i in sorted(part)] for part in (order[:count], order[count:]))
        training = self.training(train, fitted, seed)
        probes, _ = self._probes(train.backbone, training, self.rates, f"{what}{len(self.rates)} learning rates")
        judged: dict[float, float] = {}
        for rate, probe in zip(self.rates, probes, strict=True):
            if _is_finite(probe):
                self.progress.detail(f"{what}learning rate {rate:g} on {count} images held out")
                judged[rate] = best_threshold(self.segmented(probe, held, train), thresholds=[FIXED])[1]
        if not judged:
            raise ValueError("the probe diverged with each learning_rate: add a lower one")
        best = max(judged, key=lambda rate: judged[rate])
        found = ", ".join(f"{100 * dice:.1f} % with {rate:g}" for rate, dice in judged.items())
        return best, f"learning rate {best:g} chosen: Dice on {count} of {len(images)} train images held out {found}"

    def _probes(
        self, backbone: nn.Module, training: Training, rates: Sequence[float], what: str
    ) -> tuple[list[PixelProbe], Tensor]:
        """A probe for each learning rate, trained on the same windows, and their losses float32[steps, R]."""
        backbone.to(training.device)
        means, factors = measured(backbone, training, self.probed)
        probes = [PixelProbe(backbone, means, factors) for _ in rates]
        groups = [{"params": [*p.linear.parameters()], "lr": r} for p, r in zip(probes, rates, strict=True)]

        def logits(images: Tensor) -> Tensor:
            maps = probes[0].standardized(images)
            return torch.stack([probe.logits(maps, images.shape[-1]) for probe in probes])

        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        return probes, training.train(optimizer, logits, what=what)

    def describe(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.rates)
        chosen = "" if len(self.rates) == 1 else f" chosen on {self.holdout:.0%} of these images held out"
        maps = "the last map" if self.probed == 1 else f"the last {self.probed} maps"
        return (
            f"linear layer per pixel on {maps} of the frozen backbone, upsampled; {self.training_words()}, AdamW, learning rate "
            f"{rates}{chosen}, weight decay {self.weight_decay:g}; whole test images, {REGION_WORDS[self.region]}"
        )


def measured(backbone: nn.Module, training: Training, layers: int) -> tuple[list[Tensor], list[Tensor]]:
    """Mean of each channel of the last maps over `MEASURED` windows, and one divided by the deviation: float32[C] of each map.

    The windows are those of steps that training does not reach. The factor of a constant channel is 0. Raises ValueError for
    maps that are not finite.
    """
    sums: list[Tensor] = []
    batches = max(1, round(MEASURED / training.batch_size))
    for step in range(training.steps, training.steps + batches):
        with training.autocast():
            maps = last_maps(backbone, training.normalized(training.batch(step)), layers)
        found = [torch.stack([one.double(), one.double().square()]).mean((1, 3, 4)) / batches for one in maps]
        sums = [one + more for one, more in zip(sums, found, strict=True)] if sums else found
    if not all(one.isfinite().all() for one in sums):
        raise ValueError("the maps of the backbone contain NaN or infinity: it has diverged")
    means = [mean.float() for mean, _ in sums]
    deviations = [(square - mean.square()).clamp(min=0).sqrt() for mean, square in sums]
    varying = [one > FLAT * one.max() for one in deviations]
    factors = [torch.where(v, 1 / one, 0.0).float() for v, one in zip(varying, deviations, strict=True)]
    return means, factors


def _is_finite(probe: PixelProbe) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in probe.linear.parameters())
