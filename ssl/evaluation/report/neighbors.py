"""The nearest neighbors of a few images in a bank, by cosine similarity of the frozen features of each network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.data.permutation import permuted
from wildfern.ssl.evaluation.evaluator import Features
from wildfern.ssl.evaluation.protocols.retrieval import relevant
from wildfern.ssl.evaluation.unit_rows import unit_rows
from wildfern.ssl.tracking.progress import SILENT, Progress

MOST_SCORED = 5_000  # images whose neighbors' labels are counted
CHUNK = 256  # rows of similarities at a time


@dataclass(frozen=True)
class Found:
    """What one network finds: `places` int64[Q, k] in the bank and `similarity` float32[Q, k], the nearest first.

    `share`: of the k neighbors of each labeled image, those with its label; None without labels.
    """

    places: NDArray[np.int64]
    similarity: NDArray[np.float32]
    share: float | None = None


@dataclass(frozen=True)
class Neighbors:
    """The neighbors of `queries` int64[Q], places in a bank of N images.

    `labels` as of `Features`, int64[N] or uint8[N, K]; None if no image has one. `chance`: the share of all other images that
    have an image's label. Both shares are means over `scored` labeled images.
    """

    queries: NDArray[np.int64]
    found: dict[str, Found]
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None
    class_names: tuple[str, ...] | None = None
    chance: float | None = None
    scored: int = 0

    def label(self, place: int) -> str:
        """The label of an image in words; empty without one."""
        if self.labels is None:
            return ""
        label = self.labels[place]
        numbers = np.flatnonzero(label) if self.labels.ndim == 2 else [label] if label >= 0 else []
        names = self.class_names or ()
        return ", ".join(names[number] if number < len(names) else str(number) for number in numbers)

    def agrees(self, query: int, place: int) -> bool:
        """Whether two images have the same label, or a label in common; False for images without one."""
        if self.labels is None:
            return False
        one, other = self.labels[query], self.labels[place]
        return bool((one & other).any()) if self.labels.ndim == 2 else bool(one == other and one >= 0)


def draw_queries(images: int, queries: int, seed: int) -> NDArray[np.int64]:
    """Places int64[Q] of distinct images: a pure function of the three numbers. More queries begin with the same ones."""
    return permuted(np.arange(min(queries, images)), images, key("neighbors", seed))[1]


def find_neighbors(
    features: Mapping[str, Features], queries: NDArray[np.int64], k: int, progress: Progress = SILENT
) -> Neighbors:
    """The k nearest of each query in the bank, by network; fewer if the bank has fewer others. None is its own neighbor.

    `features` are those of the same images for each network. Raises ValueError for fewer than two images, and for features that
    are not finite.
    """
    bank = next(iter(features.values()))
    if len(bank) < 2:
        raise ValueError(f"neighbors need at least two images, got {len(bank)}")
    k = min(k, len(bank) - 1)
    labeled = bank.y.any(1) if bank.multi_label else bank.y >= 0
    scored = labeled.nonzero()[:, 0]
    if len(scored) > MOST_SCORED:
        scored = scored[torch.linspace(0, len(scored) - 1, MOST_SCORED, device=scored.device).long()]
    found = {}
    for name, one in features.items():
        if not torch.isfinite(one.x).all():
            raise ValueError(f"the features of the {name} backbone contain NaN or infinity: it has diverged")
        rows = unit_rows(one.x)
        places, similarity = nearest(rows, torch.from_numpy(queries).to(rows.device), k)
        share = _label_share(rows, bank.y, scored, k, progress) if len(scored) else None
        found[name] = Found(places.cpu().numpy(), similarity.cpu().numpy(), share)
    if not len(scored):
        return Neighbors(queries, found)
    return Neighbors(queries, found, bank.y.cpu().numpy(), bank.class_names, _chance(bank.y, scored), len(scored))


def nearest(rows: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Places int64[Q, k] and similarities of the k nearest of `queries` int64[Q] among the unit rows float[N, D].

    Among equals the earlier row comes first.
    """
    similarity = rows[queries] @ rows.T
    similarity.scatter_(1, queries[:, None], -torch.inf)  # itself
    values, places = similarity.sort(dim=1, descending=True, stable=True)
    return places[:, :k], values[:, :k].clamp(-1, 1)


def _label_share(rows: Tensor, y: Tensor, scored: Tensor, k: int, progress: Progress) -> float:
    right = 0
    for start in range(0, len(scored), CHUNK):
        progress.count(start, len(scored), "images")
        queries = scored[start : start + CHUNK]
        places, _ = nearest(rows, queries, k)
        right += int(relevant(y, y[queries]).gather(1, places).sum())
    return right / (len(scored) * k)


def _chance(y: Tensor, scored: Tensor) -> float:
    others = sum(int(relevant(y, y[scored[i : i + CHUNK]]).sum()) for i in range(0, len(scored), CHUNK)) - len(scored)
    return others / (len(scored) * (len(y) - 1))


def spread_evenly(items: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 … items - 1, in order, with equal distances."""
    return np.arange(items) if items <= most else np.linspace(0, items - 1, most).astype(np.int64)
