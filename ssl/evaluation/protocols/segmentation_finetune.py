"""Supervised training of a backbone with a decoder on a few images with masks; the last step is scored."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import MaskedImage, MaskedImages
from wildfern.ssl.evaluation.metrics.classification_scores import joined
from wildfern.ssl.evaluation.protocols.finetune_training import Diverged
from wildfern.ssl.evaluation.protocols.segmentation import REGION_WORDS, Region
from wildfern.ssl.evaluation.protocols.segmentation_training import Windows, losses_words
from wildfern.ssl.evaluation.protocols.trained_segmentation import TrainedSegmentation, unwrapped
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.decoders import DECODERS, DecoderName, make_decoder, measure_maps

MOMENTUM = 0.9  # of SGD


@dataclass(frozen=True)
class WindowAugmentation:
    """Changes of train windows, drawn for each by seed, step and place in the batch. Raises ValueError for impossible ones.

    flip: mirror half of them. rotate: turn by 0, 90, 180 or 270°. brightness, contrast: factors in [1 - x, 1 + x]; contrast is
    about the mean of each channel of the window and comes first, and results are clipped to [0, 1].
    """

    flip: bool = True
    rotate: bool = True
    brightness: float = 0.2
    contrast: float = 0.2

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} x draws factors in [1 - x, 1 + x] and is in [0, 1), got {getattr(self, name)}"
                )

    def __call__(self, windows: Windows, seed: int, step: int, first: int = 0) -> Windows:
        """The changed windows; `first` is the place of the first one in the batch."""
        places = first + np.arange(len(windows.images))
        draws = uniform(fold(np.uint64(key("segmentation augmentation", seed, step)), places), 4)
        moved = [self._moved(layer, draws[:, 0], draws[:, 1]) for layer in windows]
        factors = torch.from_numpy(2 * draws[:, 2:] - 1).to(moved[0]).T[..., None, None, None]
        bright, strong = 1 + self.brightness * factors[0], 1 + self.contrast * factors[1]
        images = moved[0]
        if self.contrast:
            mean = images.mean((2, 3), keepdim=True)
            images = (images - mean) * strong + mean
        return Windows((images * bright).clamp(0, 1), moved[1], moved[2])

    def _moved(self, layer: Tensor, flips: np.ndarray, turns: np.ndarray) -> Tensor:
        found = []
        for one, flip, turn in zip(layer, flips, turns, strict=True):
            one = one.flip(-1) if self.flip and flip < 0.5 else one
            found.append(one.rot90(int(4 * turn), (-2, -1)) if self.rotate else one)
        return torch.stack(found)

    def describe(self) -> str:
        words = ["flips"] * self.flip + ["turns by 90°"] * self.rotate
        words += [f"{name} ± {value:.0%}" for name in ("brightness", "contrast") if (value := getattr(self, name))]
        return ", ".join(words) or "no augmentation"


@register("evaluator", "segmentation_finetune")
class SegmentationFinetune(TrainedSegmentation):
    """A copy of the backbone with a decoder, trained on a few images with masks: mean Dice and the scores of `segmentation`.

    decoder, decoder_width: of a new decoder. keep_decoder: start from that of a run that segments, such as freecos, if it has
        one. freeze: train only the decoder. freeze_batch_norm: normalize the backbone's layers, and those of a kept decoder, with
        the statistics that they came with.
    shots: train images (null: all), drawn `seeds` times, from `seed` on; scores are means over draws.
    learning_rate: rises over a tenth of the steps and falls to 0 by a cosine. No step is selected: the last one is scored.
    flip to contrast: those of `WindowAugmentation`.
    size: side of the windows in pixels (null: that of the backbone's images). scale: by which images are resized (null: as in the
        training of a run that segments, else 1). region, overlap: as of `segmentation`; also in training, pixels outside of the
        field of view do not count.

    `dice` and most others are at the threshold 0.5, `dice_validation_threshold` at the best one on train.
    """

    def __init__(
        self,
        *,
        decoder: DecoderName = "unet",
        decoder_width: int = 512,
        keep_decoder: bool = True,
        freeze: bool = False,
        freeze_batch_norm: bool = False,
        steps: int = 500,
        batch_size: int = 8,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        flip: bool = True,
        rotate: bool = True,
        brightness: float = 0.2,
        contrast: float = 0.2,
        shots: int | None = None,
        seeds: int = 1,
        size: int | None = None,
        scale: float | None = None,
        region: Region = "field_of_view",
        overlap: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(steps, batch_size, weight_decay, shots, seeds, size, scale, region, overlap, seed)
        if decoder not in DECODERS:
            raise ValueError(f"decoder is one of {', '.join(get_args(DecoderName))}, got {decoder!r}")
        if decoder_width < 1:
            raise ValueError(f"decoder_width is a number of channels of at least 1, got {decoder_width}")
        if optimizer not in ("adamw", "sgd"):
            raise ValueError(f"optimizer is adamw or sgd, got {optimizer!r}")
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate is a number above 0, got {learning_rate}")
        self.augmentation = WindowAugmentation(flip, rotate, brightness, contrast)
        self.decoder, self.decoder_width, self.keep_decoder = decoder, decoder_width, keep_decoder
        self.freeze, self.freeze_batch_norm = freeze, freeze_batch_norm
        self.optimizer, self.learning_rate = optimizer, learning_rate

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        super().check_network(backbone, size)
        inner = unwrapped(backbone)
        if not isinstance(inner, Backbone):
            raise ValueError(f"a decoder needs a Backbone to be attached to, got {type(inner).__name__}")
        if not self._keeps_decoder(inner):
            measure_maps(inner)

    def fit(self, train: MaskedImages, images: Sequence[MaskedImage], seed: int, what: str) -> tuple[nn.Module, str]:
        training = self.training(train, images, seed)
        with torch.random.fork_rng(devices=[training.device.index or 0] if training.device.type == "cuda" else []):
            torch.manual_seed(key("segmentation finetune", seed) >> 1)
            network, kept = self._network(train, training.device)
            losses = training.train(
                self._optimizer(network),
                lambda windows: _segment(network, windows)[None],
                lambda windows, step: self.augmentation(windows, seed, step),
                f"{what}training on {len(images)} images",
            )
        if not losses.isfinite().all() or not all(bool(one.isfinite().all()) for one in network.parameters()):
            raise Diverged("fine-tuning diverged: the train loss or a weight is not finite; lower learning_rate")
        return network, joined("" if kept else f"new decoder {self.decoder}", losses_words(losses[:, 0]))

    def _network(self, train: MaskedImages, device: torch.device) -> tuple[nn.Module, bool]:
        """A copy of the backbone with a decoder, ready for training, and whether the decoder is kept."""
        network = copy.deepcopy(train.backbone).requires_grad_(True)
        inner = unwrapped(network)
        assert isinstance(inner, Backbone)  # of `check_network`
        kept = self._keeps_decoder(inner)
        decoder = inner.decoder if kept else make_decoder(inner, self.decoder, self.decoder_width)
        assert decoder is not None
        inner.attach_decoder(decoder, self.settings(train))
        network.to(device)
        inner.train()
        if self.freeze:
            inner.network.requires_grad_(False).eval()
        given: list[nn.Module] = [inner.network, decoder] if kept else [inner.network]
        for module in (module for part in given for module in part.modules()) if self.freeze_batch_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return network, kept

    def _keeps_decoder(self, backbone: Backbone) -> bool:
        return self.keep_decoder and backbone.decoder is not None

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Weight decay for matrices and kernels, none for biases and normalization."""
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.learning_rate)
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=MOMENTUM)

    def describe(self) -> str:
        kept = " (that of a run that segments is kept)" * self.keep_decoder
        trained = "decoder trained on the frozen backbone" if self.freeze else "backbone and decoder trained"
        name = "AdamW" if self.optimizer == "adamw" else f"SGD with momentum {MOMENTUM:g}"
        frozen = ", statistics of batch normalization kept" * self.freeze_batch_norm
        return (
            f"{trained}, decoder {self.decoder}{kept}; {self.training_words()}, {self.augmentation.describe()}, {name}, learning "
            f"rate {self.learning_rate:g}, weight decay {self.weight_decay:g}{frozen}; whole test images, "
            f"{REGION_WORDS[self.region]}"
        )


def _segment(network: nn.Module, windows: Tensor) -> Tensor:
    """The logits in training mode. Batch normalization of one window and one position has no variance: ValueError."""
    segment: Callable[[Tensor], Tensor] = network.segment  # type: ignore[assignment]
    try:
        return segment(windows)
    except ValueError as error:
        if len(windows) > 1 or not any(isinstance(module, _BatchNorm) for module in network.modules()):
            raise
        message = "batch_size: 1 is too small to train this network: its batch normalization needs 2 or more windows"
        raise ValueError(message) from error
