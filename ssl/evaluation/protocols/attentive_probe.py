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
from wildfern.ssl.evaluation.evaluator import ChunkStream, HeldOut, Score, check_single_label
from wildfern.ssl.evaluation.features import method_of
from wildfern.ssl.evaluation.protocols.probe_training import Batches, ProbeHeads, TrainedProbe, cosine, shuffled

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
class AttentiveProbe(TrainedProbe):
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
        super().__init__(learning_rate, epochs, batch_size, weight_decay, holdout, seed)
        if queries < 1 or cache_mb < 1:
            raise ValueError(f"queries and cache_mb are at least 1, got queries={queries}, cache_mb={cache_mb}")
        self.queries, self.prefix, self.cache_mb = queries, prefix, cache_mb

    def check_network(self, backbone: nn.Module, size: int | None) -> None:
        method_of(backbone, "tokens")
        width = getattr(getattr(backbone, "network", None), "num_features", None)
        if isinstance(width, int):
            check_queries(width, self.queries)

    def __call__(self, train: ChunkStream, test: HeldOut[ChunkStream]) -> list[Score]:
        tokens = TrainTokens(train, self.prefix, self.cache_mb * 2**20, self.batch_size)
        labels = self.train_labels(tokens.labels, train.class_names)

        def make_head() -> nn.Module:
            generator = torch.Generator().manual_seed(key("attentive head", self.seed) >> 1)
            return AttentiveHead(tokens.dim, len(labels.classes), self.queries, generator).to(tokens.labels.device)

        heads = ProbeHeads(make_head, self.learning_rates, partial(torch.optim.AdamW, weight_decay=self.weight_decay))
        fitted = ~labels.held
        batch = min(self.batch_size, int(fitted.sum()))
        batches = partial(tokens.in_random_order, fitted, batch, self.seed)
        # If the tokens are not kept, the stream counts the images it reads.
        self.fit(heads, labels, batch, batches, cosine, counted=tokens.kept is not None)
        held_out = tokens.in_order(labels.held, self.batch_size)
        return self.scores(heads, labels, held_out, tokens.of_test(test), after=tokens.describe())

    def describe(self) -> str:
        attended = "patch and prefix tokens" if self.prefix else "patch tokens"
        return (
            f"attentive probe on frozen {attended}, standardized by train: {self.queries} learned "
            f"{'query pools' if self.queries == 1 else 'queries pool'} the values by attention (efficient probing), then a "
            f"linear layer; AdamW, {self.rate_words()}, weight decay {self.weight_decay:g}, cosine, "
            f"{self.training_words('no augmentation')}"
        )


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

    def of_test(self, test: HeldOut[ChunkStream]) -> Batches:
        """Tokens of test, which is read when the first ones are asked for, and their labels."""
        for chunk in test.read():
            check_single_label("attentive", "LinearProbe", chunk.y)
            yield self.standardized(self.rounded(chunk.x, "test")), chunk.y

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
