"""The ImageNet linear protocol: a linear layer on the frozen backbone, trained by SGD on random crops and flips."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.augmentation.crop import crop_views
from wildfern.ssl.augmentation.operation import UNCHANGED
from wildfern.ssl.augmentation.table import ViewSettings, draw_table
from wildfern.ssl.evaluation.evaluator import HeldOut, LabeledImages, Score, check_single_label
from wildfern.ssl.evaluation.features import device_of, frozen
from wildfern.ssl.evaluation.last_blocks import block_tokens, check_class_tokens, has_class_tokens
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized
from wildfern.ssl.evaluation.protocols.probe_training import Batches, ProbeHeads, TrainedProbe, cosine, shuffled

LinearProtocol = Literal["lightly", "solo-learn", "dino", "mocov2"]
Schedule = Literal["cosine to 0.001 in steps", "cosine in epochs", "divided by 10 after 60 % and 80 % of the epochs"]
BATCHED = 256  # images for which learning rates are given
MOMENTUM = 0.9  # of all four
AT_ONCE = 256  # images in the backbone


@dataclass(frozen=True)
class PublishedSettings:
    """`learning_rate` for 256 images in a batch; `initial_std` of the normal weights (None: uniform, as `nn.Linear`).

    `layers`: the number of last blocks whose class tokens the head gets, of a network that has them (1: the backbone's output).
    """

    learning_rate: float
    epochs: int
    batch_size: int
    schedule: Schedule
    initial_std: float | None
    layers: int = 1


PUBLISHED: dict[LinearProtocol, PublishedSettings] = {
    # benchmarks/imagenet/resnet50/linear_eval.py and lightly.utils.benchmarking.LinearClassifier: after SimCLR's.
    "lightly": PublishedSettings(0.1, 90, 256, "cosine to 0.001 in steps", None),
    # scripts/linear/imagenet-100: 0.1 to 3.0, another rate for each method; 1.0 is that of SimCLR.
    "solo-learn": PublishedSettings(1.0, 100, 256, "divided by 10 after 60 % and 80 % of the epochs", None),
    # eval_linear.py (Caron et al., 2021, appendix), by default for ViT-S; the rate is swept for each network.
    "dino": PublishedSettings(0.001, 100, 1024, "cosine in epochs", 0.01, 4),
    # main_lincls.py (He et al., 2020, section 4.1; Chen et al., 2020).
    "mocov2": PublishedSettings(30.0, 100, 256, "divided by 10 after 60 % and 80 % of the epochs", 0.01),
}


def schedule_factor(schedule: Schedule, step: int, steps: int, epochs: int) -> float:
    """Factor of the learning rate at step 0 ≤ `step` < `steps`, of `epochs` epochs alike; 1 at the first step."""
    epoch = step * epochs // steps
    if schedule == "cosine in epochs":
        return cosine(epoch, epochs)
    if schedule == "cosine to 0.001 in steps":
        return 1e-3 + (1 - 1e-3) * cosine(step, max(1, steps - 1))
    return 0.1 ** sum(100 * epoch >= percent * epochs for percent in (60, 80))


@register("evaluator", "linear_sgd")
class LinearSGD(TrainedProbe):
    """Linear layer trained by SGD on a frozen backbone: accuracy, top-5 accuracy (more than five classes), balanced accuracy.

    `protocol` names published settings; other arguments replace single ones. `learning_rate` is for batches of 256 images and
    scaled in proportion to the batch. With several, heads are trained side by side without the share `holdout` of train, and
    the head that is right most often on that share is scored; with one, all of train is used. The scripts of lightly, DINO and
    MoCo report the epoch that is best on the images they report on (DINO's paper also the best rate); here test decides nothing,
    and the last epoch counts. `crop` False: no crops and flips, so that features are computed once. `layers`: the class tokens of
    this number of last blocks (None: the protocol's); `average_patches` adds the mean of the last block's patch tokens. DINO's
    paper has layers 4 for ViT-S, layers 1 with average_patches for ViT-B. Multi-hot labels are refused.
    """

    needs = "images"
    named = ("protocol",)

    def __init__(
        self,
        *,
        protocol: LinearProtocol = "lightly",
        learning_rate: float | tuple[float, ...] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        weight_decay: float = 0.0,
        crop: bool = True,
        layers: int | None = None,
        average_patches: bool = False,
        holdout: float = 0.1,
        seed: int = 0,
    ) -> None:
        if protocol not in PUBLISHED:
            raise ValueError(f"protocol is one of {', '.join(PUBLISHED)}, got {protocol!r}")
        if layers is not None and layers < 1:
            raise ValueError(f"layers is a number of blocks of at least 1, got {layers}")
        published = PUBLISHED[protocol]
        learning_rate = published.learning_rate if learning_rate is None else learning_rate
        epochs = published.epochs if epochs is None else epochs
        batch_size = published.batch_size if batch_size is None else batch_size
        super().__init__(learning_rate, epochs, batch_size, weight_decay, holdout, seed)
        self.protocol, self.schedule, self.initial_std = protocol, published.schedule, published.initial_std
        self.crop = crop
        # Only a protocol's own number of layers gives way to the output of a network without class tokens, as in its script.
        self.layers_if_any = published.layers if layers is None else 1
        self.layers, self.average_patches = layers or 1, average_patches

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        if (layers := self._layers(backbone)) > 1 or self.average_patches:
            check_class_tokens(backbone, layers)

    def __call__(self, train: LabeledImages, test: HeldOut[LabeledImages]) -> list[Score]:
        check_single_label("linear_sgd", "LinearProbe", train.y)
        self.check_network(train.backbone, None)
        height, width = train.pixels.shape[1:3]
        if self.crop and height != width:
            raise ValueError(f"random crops need square images, got {height} × {width} px: set a size, or crop: false")
        labels = self.train_labels(torch.from_numpy(train.y), train.class_names)
        features = partial(self._features, train.backbone, train.preprocessing)
        images = np.flatnonzero(~labels.held.numpy())
        fixed = None
        if not self.crop:
            fixed = torch.cat([features(train.pixels[part]) for part in self._parts(images, "images")])
        probed = features(train.pixels[images[:1]])
        if not probed.isfinite().all():
            raise ValueError("the features of train contain NaN or infinity: the backbone has diverged")
        make_head = partial(self._head, probed.shape[1], len(labels.classes), probed.device)
        make_optimizer = partial(torch.optim.SGD, momentum=MOMENTUM, weight_decay=self.weight_decay)
        heads = ProbeHeads(make_head, self.learning_rates, make_optimizer)
        batch = min(self.batch_size, len(images))

        def batches(epoch: int) -> Batches:
            order = shuffled(np.arange(len(images)), self.seed, epoch)
            for at in order[: len(images) // batch * batch].reshape(-1, batch):
                if fixed is None:
                    few = (images[at[start : start + AT_ONCE]] for start in range(0, batch, AT_ONCE))
                    x = torch.cat([features(train.pixels[part], part, epoch) for part in few])
                else:
                    x = fixed[torch.from_numpy(at)]
                yield x, torch.from_numpy(images[at])

        def factor(step: int, steps: int) -> float:
            return schedule_factor(self.schedule, step, steps, self.epochs) * batch / BATCHED

        self.fit(heads, labels, batch, batches, factor)
        parts = self._parts(np.flatnonzero(labels.held.numpy()), "train images held out")
        held_out = ((features(train.pixels[part]), torch.from_numpy(part)) for part in parts)
        words = f"{probed.shape[1]} inputs of the head, batches of {batch} images"
        each = len(images) // batch
        words += f", {self.epochs * each:,} steps ({self.epochs} epoch{'s' * (self.epochs > 1)} of {each:,})"
        return self.scores(heads, labels, held_out, self._of_test(test, features), before=words)

    def describe(self) -> str:
        images = "random resized crops and flips of train" if self.crop else "center crops, features computed once"
        inputs = "the backbone's output"
        if (layers := max(self.layers, self.layers_if_any)) > 1 or self.average_patches:
            blocks = "token of the last block" if layers == 1 else f"tokens of the last {layers} blocks"
            inputs = f"the class {blocks}" + " and the mean of its patch tokens" * self.average_patches
            if self.layers_if_any > 1 and not self.average_patches:
                inputs += " (of a network without class token, its output)"
        return (
            f"linear layer on {inputs}, frozen; {self.protocol} settings: SGD, {self.rate_words()} × batch / {BATCHED}, "
            f"momentum {MOMENTUM:g}, weight decay {self.weight_decay:g}, {self.schedule}, "
            f"{self.training_words(images)}, center crops of test"
        )

    def _of_test(self, test: HeldOut[LabeledImages], features: Callable[..., Tensor]) -> Batches:
        held = test.read()
        check_single_label("linear_sgd", "LinearProbe", held.y)
        for part in self._parts(np.arange(len(held)), "test images"):
            yield features(held.pixels[part]), torch.from_numpy(held.y[part])

    def _head(self, width: int, classes: int, device: torch.device) -> nn.Linear:
        generator = torch.Generator().manual_seed(key("linear head", self.seed) >> 1)
        head = nn.utils.skip_init(nn.Linear, width, classes)
        for parameter in head.parameters():
            if self.initial_std is None:
                nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
            elif parameter is head.weight:
                nn.init.normal_(parameter, 0.0, self.initial_std, generator=generator)
            else:
                nn.init.zeros_(parameter)
        return head.to(device)

    def _features(
        self,
        backbone: nn.Module,
        preprocessing: Preprocessing,
        pixels: NDArray[np.uint8],
        images: NDArray[np.int64] | None = None,
        epoch: int = 0,
    ) -> Tensor:
        """Inputs of the head, float32[n, D], of uint8[n, S, S, C]; with their numbers `images`, of random crops of an epoch."""
        device = torch.device(preprocessing.device or device_of(backbone))
        backbone.to(device)
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).float().div_(255)
        resize = preprocessing.interpolation
        x = x.permute(0, 3, 1, 2) if images is None else self._random_crops(x, images, epoch, resize)
        x = normalized(x, preprocessing.mean, preprocessing.std)
        bf16, layers = preprocessing.precision == "bf16", self._layers(backbone)
        with frozen(backbone), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            if layers == 1 and not self.average_patches:
                return backbone(x).float()
            blocks = block_tokens(backbone, x, layers)
            parts = [token for _, token in blocks] + [blocks[-1][0].mean(1)] * self.average_patches
            return torch.cat(parts, dim=1).float()

    def _random_crops(self, x: Tensor, images: NDArray[np.int64], epoch: int, interpolation: str) -> Tensor:
        """torchvision's RandomResizedCrop and RandomHorizontalFlip of float[n, S, S, C], drawn by seed, epoch and number."""
        width = x.shape[2]
        crops = {"crop_scale": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3), "flip": 0.5, "interpolation": interpolation}
        settings = ViewSettings(**{"size": width, **UNCHANGED, **crops})
        table = draw_table([settings], key("linear crop", self.seed), epoch, images, 0)
        sides = np.full(len(images), width)
        boxes, flip = (torch.from_numpy(one).to(x.device) for one in (table.boxes(sides, sides), table.flip))
        return crop_views(x, boxes, flip, width, interpolation)

    def _layers(self, backbone: nn.Module) -> int:
        return self.layers_if_any if self.layers_if_any > 1 and has_class_tokens(backbone) else self.layers

    def _parts(self, images: NDArray[np.int64], unit: str) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(images), AT_ONCE):
            self.progress.count(start, len(images), unit, "")
            yield images[start : start + AT_ONCE]
