"""Attentive probe: learned queries that attend over the tokens of a frozen backbone, then a linear layer.

The attention is that of efficient probing (Psomas et al., 2025, "Attention, Please!"): the tokens are the keys, and each query
pools its own part of the values. The tokens are standardized channel by channel, as in AIM's attentive probe (El-Nouby et al.,
2024), but by the statistics of all train tokens and not of a batch; there is no other normalization and no MLP.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.generators.counter_rng import key
from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import (
    ChunkStream,
    Evaluator,
    HeldOut,
    Score,
    check_single_label,
    check_test,
)
from wildfern.ssl.evaluation.features import method_of
from wildfern.ssl.evaluation.metrics.classification_scores import joined, predicted_scores
from wildfern.ssl.evaluation.metrics.label_counts import unseen_words
from wildfern.ssl.evaluation.protocols.probe_training import (
    Choice,
    HeldOutChoice,
    ProbeHeads,
    check_training,
    chosen_words,
    class_targets,
    cosine,
    held_out_images,
    shuffled,
    tested,
)

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
EPSILON = 1e-6  # added to variances, as by AIM's batch normalization
SORTED_BELOW = 0.8  # of the classes that as many images in random order would have


class AttentiveHead(nn.Module):
    """Logits float[N, C] of tokens float[N, T, D]: M queries pool the tokens, then a linear layer.

    Query u_j attends with a_jt = softmax_t(u_jᵀ x_t / √D) and gives Σ_t a_jt V_j x_t, with V_j of D / M rows; the linear layer
    gets these M parts, D numbers (Psomas et al., 2025, section 3). Raises ValueError if M does not divide D.
    """

    def __init__(self, dim: int, classes: int, queries: int, generator: torch.Generator) -> None:
        super().__init__()
        check_queries(dim, queries)
        self.queries = nn.Parameter(0.02 * torch.randn(queries, dim, generator=generator))
        bound = dim**-0.5
        self.values = nn.Parameter(
            torch.empty(queries, dim, dim // queries).uniform_(-bound, bound, generator=generator)
        )
        self.weight = nn.Parameter(torch.empty(dim, classes).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(classes))

    def attention(self, tokens: Tensor) -> Tensor:
        """The weight of each token for each query, float[N, M, T]; rows sum to 1."""
        return (self.queries @ tokens.transpose(1, 2) / math.sqrt(tokens.shape[2])).softmax(dim=2)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = self.attention(tokens) @ tokens  # before the values, which are linear: T times less work
        return torch.einsum("nmd,mdk->nmk", pooled, self.values).flatten(1) @ self.weight + self.bias


def check_queries(dim: int, queries: int) -> None:
    """Raise ValueError if the values of `dim` numbers cannot be divided among the queries."""
    if dim % queries:
        divisors = [number for number in range(1, dim + 1) if dim % number == 0]
        nearest = min(divisors, key=lambda number: abs(number - queries))
        raise ValueError(f"queries: {queries} does not divide the {dim} channels of the tokens; {nearest} would")


@register("evaluator", "attentive")
class AttentiveProbe(Evaluator):
    """Attentive probe on frozen tokens: accuracy, top-5 accuracy (more than five classes) and balanced accuracy.

    AdamW with a cosine to 0; the last epoch counts. With several learning rates, heads are trained side by side without the
    share `holdout` of train, and the head that is right most often on that share is scored; with one, all of train is used.
    `queries` must divide the channels of the tokens. `prefix`: class, register and distillation tokens are attended to like
    patches. Tokens of train are kept as float16 if they take at most `cache_mb` megabytes; otherwise they are computed again in
    each epoch and shuffled within a buffer of that size; train images sorted by class then raise ValueError.
    Epochs and weight decay are V-JEPA's (Bardes et al., 2024, evaluation on ImageNet). Multi-hot labels are refused.
    """

    needs = "tokens"

    def __init__(
        self,
        *,
        queries: int = 32,
        prefix: bool = True,
        learning_rate: float | tuple[float, ...] = LEARNING_RATES,
        epochs: int = 20,
        batch_size: int = 256,
        weight_decay: float = 1e-3,
        holdout: float = 0.1,
        cache_mb: int = 2048,
        seed: int = 0,
    ) -> None:
        rates = learning_rate if isinstance(learning_rate, tuple | list) else (learning_rate,)
        self.learning_rates = tuple(sorted(set(rates)))
        check_training(self.learning_rates, epochs, batch_size, weight_decay, holdout)
        if queries < 1 or cache_mb < 1:
            raise ValueError(f"queries and cache_mb are at least 1, got queries={queries}, cache_mb={cache_mb}")
        self.queries, self.prefix, self.epochs, self.batch_size = queries, prefix, epochs, batch_size
        self.weight_decay, self.holdout, self.cache_mb, self.seed = weight_decay, holdout, cache_mb, seed

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        method_of(backbone, "tokens")
        width = getattr(getattr(backbone, "network", None), "num_features", None)
        if isinstance(width, int):
            check_queries(width, self.queries)

    def __call__(self, train: ChunkStream, test: HeldOut[ChunkStream]) -> list[Score]:
        tokens = TrainTokens(train, self.prefix, self.cache_mb * 2**20, self.batch_size)
        classes, targets = class_targets(tokens.labels)
        held = held_out_images(targets, len(self.learning_rates), self.holdout, self.seed)
        heads = self._trained(tokens, targets, ~held, len(classes))
        choice = Choice(0)
        if held.any():
            judge = HeldOutChoice(len(heads.heads), int(held.sum()))
            for x, images in tokens.in_order(held, self.batch_size):
                judge.add(heads.logits(x), targets[images])
            choice = judge.choose()

        logits, labels = [], []
        for chunk in test.read():
            check_single_label("attentive", "LinearProbe", chunk.y)
            x = tokens.standardized(tokens.rounded(chunk.x, "test"))
            logits.append(heads.logits_of(choice.head, x).cpu())
            labels.append(chunk.y.cpu())
        check_test(labels)
        found, known = torch.cat(logits), torch.cat(labels)
        predictions = tested(found, known, classes.cpu(), choice.temperature)
        unseen = unseen_words(tokens.labels, known, train.class_names)
        detail = joined(choice.describe(heads.rates[choice.head]), tokens.describe(), unseen)
        return predicted_scores(predictions, len(classes), detail)

    def describe(self) -> str:
        attended = "patch and prefix tokens" if self.prefix else "patch tokens"
        rates = ", ".join(f"{rate:g}" for rate in self.learning_rates)
        return (
            f"attentive probe on frozen {attended}, standardized by train: {self.queries} learned "
            f"{'query pools' if self.queries == 1 else 'queries pool'} the values by attention (efficient probing), then a "
            f"linear layer; AdamW, learning rate {rates}, weight decay {self.weight_decay:g}, cosine, {self.epochs} "
            f"epoch{'s' * (self.epochs > 1)}, batches of {self.batch_size}, no augmentation; "
            f"{chosen_words(len(self.learning_rates), self.holdout)}; last epoch"
        )

    def _trained(self, tokens: "TrainTokens", targets: Tensor, fitted: Tensor, classes: int) -> ProbeHeads:
        """Heads trained on the images that `fitted` bool[N] marks."""

        def make_head() -> nn.Module:
            generator = torch.Generator().manual_seed(key("attentive head", self.seed) >> 1)
            return AttentiveHead(tokens.dim, classes, self.queries, generator).to(targets.device)

        heads = ProbeHeads(make_head, self.learning_rates, partial(torch.optim.AdamW, weight_decay=self.weight_decay))
        images = int(fitted.sum())
        batch = min(self.batch_size, images)
        batches = images // batch
        for epoch in range(self.epochs):
            for number, (x, picked) in enumerate(tokens.in_random_order(fitted, batch, self.seed, epoch)):
                step = epoch * batches + number
                if tokens.kept is not None:  # otherwise the stream counts the images it reads
                    told = f"epoch {epoch + 1} of {self.epochs}"
                    self.progress.count(step * batch, self.epochs * batches * batch, "images", told)
                heads.step(x, targets[picked], cosine(step, self.epochs * batches))
            heads.check_finite(epoch)
        return heads


class TrainTokens:
    """The tokens of train in batches, standardized, with the numbers of their images.

    `labels` int64[N] and the statistics are read once. `kept` float16[N, T, D] holds all tokens if they take at most `limit`
    bytes; otherwise (None) the stream is read again for each pass. Raises ValueError for multi-hot labels, tokens that are not
    finite, and train images sorted by class of which `limit` bytes hold too few to shuffle them.
    """

    def __init__(self, stream: ChunkStream, prefix: bool, limit: int, batch: int) -> None:
        self.stream, self.prefix = stream, prefix
        parts: list[Tensor] = []
        labels: list[Tensor] = []
        images = count = 0
        for chunk in stream:
            check_single_label("attentive", "LinearProbe", chunk.y)
            if not images:
                first = self._attended(chunk.x)
                self.dim = first.shape[2]
                # Less the first images' mean, small differences between tokens survive in float16.
                self._center, self._scale = first.mean((0, 1)), first.std().nan_to_num(0) or first.new_tensor(1.0)
                sums, squares = torch.zeros(2, self.dim, dtype=torch.float64)
                most = max(batch, limit // (2 * first[0].numel()))
            x = self.rounded(chunk.x, "train")
            flat = x.flatten(0, 1).float()
            count += len(flat)
            sums, squares = sums + flat.sum(0).cpu(), squares + flat.square().sum(0).cpu()
            labels.append(chunk.y)
            images += len(x)
            if images <= most:
                parts.append(x)
            else:
                parts.clear()
        if not images:
            raise ValueError("the train split has no images to train a head on")
        self.labels = torch.cat(labels)
        mean = sums / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self._mean, self._std = (one.float().to(x.device) for one in (mean, (variance + EPSILON).sqrt()))
        self.kept = torch.cat(parts) if parts else None
        self.block = most // batch * batch
        if self.kept is None:
            _check_unsorted(self.labels, self.block, most, limit)

    def rounded(self, tokens: Any, split: str) -> Tensor:
        """`Tokens` of a chunk as float16[n, T, D], before standardization. Raises ValueError if they are not finite."""
        x = ((self._attended(tokens) - self._center) / self._scale).half()
        if not x.isfinite().all():
            raise ValueError(f"the tokens of {split} contain NaN or infinity: the backbone has diverged")
        return x

    def standardized(self, x: Tensor) -> Tensor:
        """Rounded tokens less the mean of train, divided by its standard deviation, channel by channel: float32."""
        return (x.float() - self._mean) / self._std

    def in_random_order(self, mask: Tensor, batch: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the images that `mask` bool[N] marks, without the last, partial one; in blocks if none are kept."""
        for x, rows, images in self._blocks(mask, self.block // batch * batch):
            order = shuffled(images, seed, epoch)
            rows = rows[np.searchsorted(images, order)]
            for start in range(0, len(order) // batch * batch, batch):
                part = slice(start, start + batch)
                yield self.standardized(x[torch.from_numpy(rows[part])]), torch.from_numpy(order[part])

    def in_order(self, mask: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images that `mask` bool[N] marks."""
        for x, rows, images in self._blocks(mask, batch):
            for start in range(0, len(images), batch):
                part = slice(start, start + batch)
                yield self.standardized(x[torch.from_numpy(rows[part])]), torch.from_numpy(images[part])

    def describe(self) -> str:
        """Where the tokens come from, and how they are shuffled."""
        if self.kept is not None:
            return "tokens kept as float16"
        return f"tokens computed again in each epoch, shuffled within {self.block} images"

    def _attended(self, tokens: Any) -> Tensor:
        return (torch.cat([tokens.prefix, tokens.patches], dim=1) if self.prefix else tokens.patches).float()

    def _blocks(self, mask: Tensor, size: int) -> Iterator[tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]]:
        """Tokens, and for each marked image in them its row and its number: all, or of `size` images at a time."""
        marked = mask.cpu().numpy()
        if self.kept is not None:
            yield self.kept, np.flatnonzero(marked), np.flatnonzero(marked)
            return
        parts: list[Tensor] = []
        found: list[NDArray[np.int64]] = []
        at = waiting = 0
        for chunk in self.stream:
            numbers = np.arange(at, at := at + len(chunk.y))
            if not torch.equal(chunk.y, self.labels[numbers[0] : at]):
                raise ValueError("the labels of train changed between two passes: its images must keep their order")
            picked = marked[numbers]
            parts.append(self.rounded(chunk.x, "train")[torch.from_numpy(picked)])
            found.append(numbers[picked])
            waiting += len(found[-1])
            while waiting >= size:
                x, images = torch.cat(parts), np.concatenate(found)
                parts, found, waiting = [x[size:].clone()], [images[size:]], waiting - size
                yield x[:size], np.arange(size), images[:size]
        if waiting:
            yield torch.cat(parts), np.arange(waiting), np.concatenate(found)


def _check_unsorted(labels: Tensor, block: int, most: int, limit: int) -> None:
    """Raise ValueError if blocks of consecutive images have far fewer classes than in random order."""
    shares = torch.unique(labels, return_counts=True)[1].double().cpu() / len(labels)
    parts = labels.split(block)
    found = sum(len(part.unique()) for part in parts)
    expected = sum(float((1 - (1 - shares) ** len(part)).sum()) for part in parts)
    if found < SORTED_BELOW * expected:
        needed = math.ceil(len(labels) * limit / most / 2**20)
        raise ValueError(
            f"the train images come sorted by class, and cache_mb: {limit // 2**20} holds the tokens of {most} of "
            f"{len(labels)}, too few to shuffle them: set cache_mb to {needed}, or shuffle the data set"
        )
