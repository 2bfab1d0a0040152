"""Heads trained side by side on the same batches, one for each learning rate, of which held-out train images choose one."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.ssl.evaluation.evaluator import Evaluator, Predictions, Score, check_test
from wildfern.ssl.evaluation.metrics.calibration import fit_temperature
from wildfern.ssl.evaluation.metrics.classification_scores import joined, predicted_scores, ranked_classes
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.stratified import class_ranks

Batches = Iterable[
    tuple[Tensor, Tensor]
]  # inputs of the heads, float[n, …], and int64[n]: numbers of images, or labels
MOST_RATE = 1e6
MOST_FOR_TEMPERATURE = 5000  # held-out images whose logits are kept: one number needs no more


def check_training(
    learning_rates: Sequence[float], epochs: int, batch_size: int, weight_decay: float, holdout: float
) -> None:
    """Raise ValueError for settings with which nothing can be trained."""
    if not learning_rates or any(not 0 < rate <= MOST_RATE for rate in learning_rates):
        raise ValueError(f"learning_rate holds numbers above 0, up to {MOST_RATE:g}, got {list(learning_rates)}")
    if epochs < 1 or batch_size < 1 or not 0 <= weight_decay < math.inf:
        raise ValueError(
            "training a head needs epochs >= 1, batch_size >= 1 and weight_decay >= 0, got "
            f"epochs={epochs}, batch_size={batch_size}, weight_decay={weight_decay}"
        )
    if not 0 < holdout <= 0.5:
        raise ValueError(f"holdout is a share of train in (0, 0.5], got {holdout}")


def class_targets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes int64[C] of labels int64[N], and the place of each label among them.

    Raises ValueError for fewer than two classes and for an image without a label.
    """
    classes, targets = torch.unique(labels, return_inverse=True)
    if len(classes) < 2 or classes[0] < 0:
        raise ValueError("training a head needs labeled train images of at least two classes")
    return classes, targets


def held_out_images(targets: Tensor, learning_rates: int, holdout: float, seed: int) -> Tensor:
    """Which train images are held out to choose among this number of learning rates, bool[N]: none for one rate.

    Otherwise one of each class in round(1 / holdout), never the only one of its class. Raises ValueError if no class has two.
    """
    if learning_rates == 1:
        return torch.zeros_like(targets, dtype=torch.bool)
    held = class_ranks(targets, key("probe held out", seed)) % _parts(holdout) == 0
    held &= torch.bincount(targets)[targets] > 1
    if not held.any():
        raise ValueError("no class has two train images, so none can be held out to choose a learning rate: give one")
    return held


def shuffled(images: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The numbers of images int64[n] in the order of an epoch, a function of seed, epoch and the numbers alone."""
    draws = uniform(fold(np.uint64(key("probe order", seed, epoch)), images), 1)[:, 0]
    return images[np.lexsort((images, draws))]


def cosine(step: int, steps: int) -> float:
    """Half a cosine, from 1 at step 0 to 0 at step `steps` (Loshchilov & Hutter, 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


class ProbeHeads:
    """Heads that start alike and are trained on the same batches, each at its own learning rate of `rates`.

    A head is the same whatever other rates are trained beside it: their losses are added, and they share no weight.
    `make_head` returns a new head, always with the same weights; `make_optimizer` gets groups of parameters.
    """

    def __init__(
        self,
        make_head: Callable[[], nn.Module],
        rates: Sequence[float],
        make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        self.rates = tuple(rates)
        self.heads = [make_head() for _ in self.rates]
        groups = [{"params": [*head.parameters()], "lr": rate} for head, rate in zip(self.heads, rates, strict=True)]
        self.optimizer = make_optimizer(groups)

    def step(self, inputs: Tensor, targets: Tensor, factor: float) -> None:
        """One step of all heads on a batch, at `factor` of their learning rates: cross entropy with targets int64[n]."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate
        losses = [F.cross_entropy(head(inputs), targets) for head in self.heads]
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        self.optimizer.step()

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """The logits of each head, float[R, n, C]."""
        return torch.stack([head(inputs) for head in self.heads])

    @torch.no_grad()
    def logits_of(self, head: int, inputs: Tensor) -> Tensor:
        """The logits of one head, float[n, C]."""
        return self.heads[head](inputs)

    def check_finite(self, epoch: int) -> None:
        """Raise ValueError if after epoch number `epoch` no head has finite weights."""
        if not any(all(weight.isfinite().all() for weight in head.parameters()) for head in self.heads):
            raise ValueError(
                f"the head diverged in epoch {epoch + 1}: its weights are not finite at learning rate "
                f"{', '.join(f'{rate:g}' for rate in self.rates)}; lower learning_rate"
            )


@dataclass(frozen=True)
class Choice:
    """The place of the chosen head, its share of right held-out images, and the temperature of its logits (None: none held)."""

    head: int
    accuracy: float | None = None
    images: int = 0
    temperature: float | None = None

    def describe(self, rate: float) -> str:
        """The rate and how it was chosen."""
        if self.accuracy is None:
            return f"learning rate {rate:g}"
        return f"learning rate {rate:g} ({100 * self.accuracy:.1f} % right of {self.images} train images held out)"


class HeldOutChoice:
    """Chooses among `heads` by their logits of `images` held-out train images, added in parts.

    The head that is right most often is chosen; of equals the one with the smaller cross entropy.
    """

    def __init__(self, heads: int, images: int) -> None:
        self.right = torch.zeros(heads, dtype=torch.int64)
        self.loss = torch.zeros(heads, dtype=torch.float64)
        self.images, self._seen = images, 0
        self._stride = -(-images // MOST_FOR_TEMPERATURE)
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Logits float[R, n, C] and targets int64[n] of the next held-out images; a head that diverged is never right."""
        right = (logits.argmax(2) == targets) & logits.isfinite().all(2)
        self.right += right.sum(1).cpu()
        own = logits.float().log_softmax(2).gather(2, targets.expand(len(logits), -1)[:, :, None])
        self.loss -= own.sum((1, 2)).nan_to_num(nan=-math.inf).cpu()
        first = -self._seen % self._stride
        self._logits.append(logits[:, first :: self._stride].float().cpu())
        self._targets.append(targets[first :: self._stride].cpu())
        self._seen += len(targets)

    def choose(self) -> Choice:
        """The choice after all images were added."""
        best = max(range(len(self.right)), key=lambda head: (int(self.right[head]), -float(self.loss[head])))
        logits, targets = torch.cat(self._logits, dim=1)[best], torch.cat(self._targets)
        return Choice(best, int(self.right[best]) / self.images, self.images, fit_temperature(logits, targets))


@dataclass(frozen=True)
class TrainLabels:
    """The `classes` int64[C] of train, the `targets` int64[N] among them, and which images are `held` out, bool[N]."""

    classes: Tensor
    targets: Tensor
    held: Tensor
    class_names: tuple[str, ...] | None


class TrainedProbe(Evaluator):
    """An evaluator that trains heads on a frozen backbone, at one learning rate or several, and scores the one chosen of them.

    A subclass gives the inputs of its heads in batches: of train for `fit`, of held-out train and of test for `scores`.
    """

    def __init__(
        self, rates: float | Sequence[float], epochs: int, batch: int, weight_decay: float, holdout: float, seed: int
    ) -> None:
        self.learning_rates = tuple(sorted(set(rates if isinstance(rates, tuple | list) else (rates,))))
        check_training(self.learning_rates, epochs, batch, weight_decay, holdout)
        self.epochs, self.batch_size, self.weight_decay = epochs, batch, weight_decay
        self.holdout, self.seed = holdout, seed

    def train_labels(self, labels: Tensor, class_names: tuple[str, ...] | None) -> TrainLabels:
        """The classes of train, and the images that are held out to choose a learning rate. Raises ValueError as these do."""
        classes, targets = class_targets(labels)
        held = held_out_images(targets, len(self.learning_rates), self.holdout, self.seed)
        return TrainLabels(classes, targets, held, class_names)

    def fit(
        self,
        heads: ProbeHeads,
        train: TrainLabels,
        batch: int,
        batches: Callable[[int], Batches],
        factor: Callable[[int, int], float],
        counted: bool = True,
    ) -> None:
        """Train the heads for all epochs: `batches(epoch)` of `batch` images each, without those held out.

        `factor(step, steps)` multiplies the learning rates. `counted` False: the progress is counted elsewhere.
        """
        # The last, partial batch is dropped; the order differs between epochs.
        in_epoch = int((~train.held).sum()) // batch
        steps = self.epochs * in_epoch

        def counting(epoch: int) -> Iterator[int]:
            for step in range(epoch * in_epoch, (epoch + 1) * in_epoch):
                if counted:
                    self.progress.count(step * batch, steps * batch, "images", f"epoch {epoch + 1} of {self.epochs}")
                yield step

        for epoch in range(self.epochs):
            for step, (x, images) in zip(counting(epoch), batches(epoch), strict=True):
                heads.step(x, train.targets[images].to(x.device), factor(step, steps))
            heads.check_finite(epoch)

    def scores(
        self, heads: ProbeHeads, train: TrainLabels, held_out: Batches, test: Batches, before: str = "", after: str = ""
    ) -> list[Score]:
        """The scores of the head chosen on `held_out`; only then the images and labels of `test` are read, once.

        Their details name the choice, between the words `before` and `after`. Raises ValueError for a test split without images
        and for logits that are not finite.
        """
        choice = Choice(0)
        if train.held.any():
            judge = HeldOutChoice(len(heads.heads), int(train.held.sum()))
            for x, images in held_out:
                judge.add(heads.logits(x), train.targets[images].to(x.device))
            choice = judge.choose()
        parts = [(heads.logits_of(choice.head, x).cpu(), labels.cpu()) for x, labels in test]
        check_test(parts)
        logits, labels = (torch.cat(one) for one in zip(*parts, strict=True))
        if not logits.isfinite().all():
            raise ValueError("the logits of test images contain NaN or infinity: the backbone or the head has diverged")
        classes = train.classes.cpu()
        predictions = Predictions(labels, ranked_classes(logits, classes), logits, classes, choice.temperature)
        unseen = unseen_words(classes, labels, train.class_names)
        detail = joined(before, choice.describe(heads.rates[choice.head]), after, unseen)
        return predicted_scores(predictions, len(classes), detail)

    def rate_words(self) -> str:
        """The learning rates, for `describe`."""
        return f"learning rate {', '.join(f'{rate:g}' for rate in self.learning_rates)}"

    def training_words(self, images: str) -> str:
        """How long the heads are trained, on which `images` of train, and how one is chosen, for `describe`."""
        chosen = "trained on all of train"
        if (rates := len(self.learning_rates)) > 1:
            chosen = (
                f"{rates} learning rates trained side by side, one chosen on {1 / _parts(self.holdout):.0%} of train "
                "held out, its head scored as trained without them"
            )
        plural = "s" * (self.epochs > 1)
        return f"{self.epochs} epoch{plural}, batches of {self.batch_size}, {images}; {chosen}; last epoch"


def _parts(holdout: float) -> int:
    return max(2, round(1 / holdout))
