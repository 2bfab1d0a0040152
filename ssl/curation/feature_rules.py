"""Rules on features: similar images, and the choices of `Selection` among the images that passed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.ssl.curation.hierarchical_kmeans import Level, balanced_sample, hierarchical_k_means
from wildfern.ssl.curation.k_center import k_center
from wildfern.ssl.curation.learned_filter import DROP, KEEP, UNMARKED, learned_filter
from wildfern.ssl.curation.linkage import complete_linkage
from wildfern.ssl.curation.manifest import REJECT
from wildfern.ssl.curation.policy import Selection, Similar
from wildfern.ssl.curation.semdedup import semdedup
from wildfern.ssl.curation.similar_pairs import similar_pairs, unit_rows
from wildfern.ssl.curation.typicality import typicality
from wildfern.ssl.curation.verdicts import Verdicts

SEED = 0  # of clusters and draws: a curation is a function of the images and the policy


@dataclass(frozen=True)
class ImageFeatures:
    """Features float[n, D] on the CPU of the images int64[n], ascending; images that cannot be read have none.

    `device`: where pairs are searched and clusters computed. On a GPU the order of sums, and so a cluster, may vary.
    """

    images: NDArray[np.int64]
    values: Tensor
    device: str = "cpu"

    def of(self, wanted: NDArray[np.bool_]) -> "ImageFeatures":
        """Those of the images that are wanted, bool[N]."""
        some = np.flatnonzero(wanted[self.images])
        return ImageFeatures(self.images[some], self.values[torch.from_numpy(some)], self.device)


def judge_similar(
    features: ImageFeatures, rule: Similar, order: NDArray[np.int64], paths: list[str | None], verdicts: Verdicts
) -> None:
    """Apply the rule `similar` among the images that are not rejected: all but the best of each group, by `order` int64[N]."""
    some = features.of(~verdicts.rejected)
    if rule.action == "keep" or len(some.images) < 2:
        return
    pairs = similar_pairs(some.values, rule.similarity, device=some.device)
    first, second = pairs.first.numpy(), pairs.second.numpy()
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    ranked = np.argsort(position[some.images], kind="stable")
    groups = complete_linkage(first, second, len(some.images), ranked)
    best: dict[int, int] = {}
    for place in ranked[groups[ranked] >= 0].tolist():
        best.setdefault(int(groups[place]), place)
    rows = unit_rows(some.values)
    others = [place for place in np.flatnonzero(groups >= 0).tolist() if best[int(groups[place])] != place]
    leaders = [best[int(groups[place])] for place in others]
    cosines = (rows[others] * rows[leaders]).sum(1).tolist() if others else []
    words = [f"like {paths[some.images[leader]]}" for leader in leaders]
    verdicts.add("similar", rule.action, some.images[others], cosines, words)


def select(
    features: ImageFeatures, rule: Selection, marks: Mapping[int, str], verdicts: Verdicts
) -> tuple[list[Level], NDArray[np.int64]]:
    """Apply `rule` to the images that are kept so far; returns the levels of clusters, and the images int64[n] they are of.

    `marks`: keep or drop by image. What a step leaves out, the next one does not see; nor do steps see images marked drop, but
    for the filter. Images marked keep are left out by none, and count among those that `balance` and `diversity` keep.
    """
    fixed, dropped = (_marked(marks, mark, len(verdicts.strictness)) for mark in ("keep", "drop"))

    def remaining() -> NDArray[np.bool_]:
        return (verdicts.kept | fixed) & ~dropped

    def leave_out(rule_name: str, images: NDArray[np.int64], values: NDArray[np.float64] | None, words: str) -> None:
        free = ~fixed[images]
        some = None if values is None else values[free]
        verdicts.add(rule_name, REJECT, images[free], some, [words] * int(free.sum()))

    if rule.filter is not None:
        some = features.of(remaining() | dropped)
        marked = np.full(len(some.images), UNMARKED, np.int8)
        for place, image in enumerate(some.images.tolist()):
            if image in marks:
                marked[place] = KEEP if marks[image] == "keep" else DROP
        found = learned_filter(some.values, marked, seed=SEED)
        low = (found.scores.numpy() < rule.filter) & (marked == UNMARKED)
        words = f"probability of keep, learned from {found.n_keep} + {found.n_drop} marks (AUC {found.auc:.2f})"
        leave_out("filter", some.images[low], found.scores.numpy()[low].astype(float), words)
    if rule.atypical:
        some = features.of(remaining())
        if len(some.images) > 1:
            scores = typicality(unit_rows(some.values)).numpy().astype(float)
            count = round(rule.atypical * len(scores))
            rows = np.argsort(scores, kind="stable")[:count]
            leave_out("atypical", some.images[rows], scores[rows], "far from all others")
    levels: list[Level] = []
    clustered = features.of(remaining())
    if rule.clusters and len(clustered.images) > 1:
        fitting = [size for size in rule.clusters if size < len(clustered.images)]
        sizes = fitting or [len(clustered.images) // 2]  # for a policy that is made for more images
        rows_there = unit_rows(clustered.values).to(clustered.device)
        levels = [_on_cpu(level) for level in hierarchical_k_means(rows_there, sizes, seed=SEED)]
    if rule.epsilon is not None and levels:
        keep = semdedup(clustered.values, levels[0].of_item, rule.epsilon).numpy()
        leave_out(
            "semdedup", clustered.images[~keep], None, f"more like a kept one of its cluster than {1 - rule.epsilon:g}"
        )
    if rule.balance is not None and levels:
        free = (remaining() & ~fixed)[clustered.images]
        count = max(0, rule.balance - int(fixed[clustered.images].sum()))
        chosen = _balanced(levels, free, count)
        rest = np.setdiff1d(clustered.images[free], clustered.images[chosen])
        leave_out("balance", rest, None, f"not drawn among {rule.balance:,} spread evenly over the clusters")
    if rule.diversity is not None:
        some = features.of(remaining())
        start = np.flatnonzero(fixed[some.images]).tolist()
        count = max(rule.diversity, len(start))
        if len(some.images) > count:
            rows = k_center(unit_rows(some.values), count, start=start or None, seed=SEED).numpy()
            rest = np.setdiff1d(some.images, some.images[rows])
            leave_out("diversity", rest, None, f"not among the {rule.diversity:,} farthest from each other")
    return levels, clustered.images


def _on_cpu(level: Level) -> Level:
    return Level(level.centroids.cpu(), level.of_item.cpu(), level.distance.cpu())


def _balanced(levels: list[Level], free: NDArray[np.bool_], target: int) -> NDArray[np.int64]:
    """A balanced draw among the items of the lowest level that are free, bool[n]."""
    some = np.flatnonzero(free)
    if not len(some) or not target:
        return some[:0]
    lowest, rows = levels[0], torch.from_numpy(some)
    of_some = Level(lowest.centroids, lowest.of_item[rows], lowest.distance[rows])
    drawn = balanced_sample([of_some, *levels[1:]], min(target, len(some)), seed=SEED).numpy()
    return some[drawn]


def _marked(marks: Mapping[int, str], mark: str, count: int) -> NDArray[np.bool_]:
    """bool[count], the images with this mark."""
    found = np.zeros(count, bool)
    found[[image for image, one in marks.items() if one == mark]] = True
    return found
