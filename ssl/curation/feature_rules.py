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
    """Features float[n, D] of the images int64[n], ascending; images that cannot be read have none."""

    images: NDArray[np.int64]
    values: Tensor

    def of(self, wanted: NDArray[np.bool_]) -> "ImageFeatures":
        """Those of the images that are wanted, bool[N]."""
        some = np.flatnonzero(wanted[self.images])
        return ImageFeatures(self.images[some], self.values[torch.from_numpy(some)])


def judge_similar(
    features: ImageFeatures, rule: Similar, order: NDArray[np.int64], paths: list[str | None], verdicts: Verdicts
) -> None:
    """Apply the rule `similar` among the images that are not rejected: all but the best of each group, by `order` int64[N]."""
    some = features.of(~verdicts.rejected)
    if rule.action == "keep" or len(some.images) < 2:
        return
    pairs = similar_pairs(some.values, rule.similarity)
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

    `marks`: keep or drop by image. What a step leaves out, the next one does not see; images marked keep are left out by none.
    """
    fixed = np.zeros(len(verdicts.strictness), bool)
    fixed[[image for image, mark in marks.items() if mark == "keep"]] = True

    def leave_out(rule_name: str, images: NDArray[np.int64], values: NDArray[np.float64] | None, words: str) -> None:
        free = ~fixed[images]
        some = None if values is None else values[free]
        verdicts.add(rule_name, REJECT, images[free], some, [words] * int(free.sum()))

    if rule.filter is not None:
        some = features.of(verdicts.kept | fixed | _marked(marks, len(fixed)))
        marked = np.full(len(some.images), UNMARKED, np.int8)
        for place, image in enumerate(some.images.tolist()):
            if image in marks:
                marked[place] = KEEP if marks[image] == "keep" else DROP
        found = learned_filter(some.values, marked, seed=SEED)
        low = (found.scores.numpy() < rule.filter) & (marked == UNMARKED)
        words = f"probability of keep, learned from {found.n_keep} + {found.n_drop} marks (AUC {found.auc:.2f})"
        leave_out("filter", some.images[low], found.scores.numpy()[low].astype(float), words)
    if rule.atypical:
        some = features.of(verdicts.kept)
        if len(some.images) > 1:
            scores = typicality(unit_rows(some.values)).numpy().astype(float)
            count = int(rule.atypical * len(scores))
            rows = np.argsort(scores, kind="stable")[:count]
            leave_out("atypical", some.images[rows], scores[rows], "far from all others")
    levels: list[Level] = []
    clustered = features.of(verdicts.kept)
    if rule.clusters and len(clustered.images):
        sizes = list(dict.fromkeys(min(size, len(clustered.images)) for size in rule.clusters))
        levels = hierarchical_k_means(unit_rows(clustered.values), sizes, seed=SEED)
    if rule.epsilon is not None and levels:
        keep = semdedup(clustered.values, levels[0].of_item, rule.epsilon).numpy()
        leave_out(
            "semdedup", clustered.images[~keep], None, f"more like a kept one of its cluster than {1 - rule.epsilon:g}"
        )
    if rule.balance is not None and levels:
        chosen = _balanced(clustered, levels, rule.balance, verdicts)
        rest = np.setdiff1d(clustered.images[verdicts.kept[clustered.images]], chosen)
        leave_out("balance", rest, None, f"not drawn among {rule.balance:,} spread evenly over the clusters")
    if rule.diversity is not None:
        some = features.of(verdicts.kept)
        if len(some.images) > rule.diversity:
            rows = k_center(unit_rows(some.values), rule.diversity, seed=SEED).numpy()
            rest = np.setdiff1d(some.images, some.images[rows])
            leave_out("diversity", rest, None, f"not among the {rule.diversity:,} farthest from each other")
    return levels, clustered.images


def _balanced(clustered: ImageFeatures, levels: list[Level], target: int, verdicts: Verdicts) -> NDArray[np.int64]:
    """A balanced draw among the clustered images that are still kept."""
    kept = torch.from_numpy(np.flatnonzero(verdicts.kept[clustered.images]))
    lowest = levels[0]
    of_kept = Level(lowest.centroids, lowest.of_item[kept], lowest.distance[kept])
    rows = balanced_sample([of_kept, *levels[1:]], min(target, len(kept)), seed=SEED).numpy()
    return clustered.images[kept.numpy()[rows]]


def _marked(marks: Mapping[int, str], count: int) -> NDArray[np.bool_]:
    found = np.zeros(count, bool)
    found[list(marks)] = True
    return found
