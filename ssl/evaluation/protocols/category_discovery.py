"""Generalized category discovery on frozen features: some classes have some labels, the others are to be found.

The protocol is that of Vaze et al. (CVPR 2022): labeled images of known classes, unlabeled images of known and novel ones, and
one matching of clusters and classes over all images that are scored. Two algorithms: a semi-supervised Gaussian mixture that
splits and merges components, after GPC (Zhao et al., ICCV 2023) and DeepDPM (Ronen et al., CVPR 2022); and the semi-supervised
k-means of Vaze et al.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.curation.hierarchical_kmeans import nearest_centroid
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score
from wildfern.ssl.evaluation.metrics.classification_scores import joined, proportion
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts, class_words, unseen_classes
from wildfern.ssl.evaluation.protocols.clustering import matched_images
from wildfern.ssl.evaluation.protocols.gaussian_mixture import (
    DIMENSIONS,
    VARIANCE,
    mixture_clusters,
    principal_components,
)
from wildfern.ssl.evaluation.protocols.semi_supervised_k_means import (
    STARTS,
    cluster_means,
    count_by_labeled_accuracy,
    semi_supervised_k_means,
)
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.evaluation.unit_rows import unit_rows

Algorithm = Literal["gmm", "kmeans"]


def draw_labeled(labels: Tensor, known: float, labeled: float, seed: int) -> tuple[Tensor, Tensor]:
    """The known classes int64[M], and given int64[N]: the place of an image's class among them, or -1 if it is unlabeled.

    The share `known` of the classes, at least one and not all, in a random order; of each of them the share `labeled` of the
    images, at least one. A function of the arguments. Raises ValueError for fewer than two classes, and unlabeled images.
    """
    classes, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or classes[0] < 0:
        raise ValueError("category discovery needs train images of at least two classes, each image with its label")
    order = uniform(fold(np.uint64(key("known classes", seed)), np.arange(len(classes))), 1)[:, 0].argsort()
    chosen = torch.from_numpy(order[: min(max(1, round(known * len(classes))), len(classes) - 1)]).to(labels.device)
    place = torch.full_like(classes, -1)
    place[chosen] = torch.arange(len(chosen), device=labels.device)
    shown = class_ranks(labels, key("labeled images", seed)) < (labeled * counts).round().clamp(min=1)[index]
    return classes[chosen], torch.where(shown, place[index], -1)


@register("evaluator", "category_discovery")
class CategoryDiscovery(Evaluator):
    """Generalized category discovery: accuracy on all test images, on known and on novel classes, and the number of classes.

    The share `known` of the train classes is known, and the share `labeled` of their images has a label; all other train images
    are unlabeled. On them a prototype of each class is found, for as many classes as `classes` says or, if that is null, as are
    estimated, up to `max_classes`. A test image belongs to the nearest prototype. Test labels match prototypes with classes,
    once for all images.

    "gmm": a Gaussian mixture with diagonal covariances of the principal components of L2-normalized features; splits and merges
    estimate the number. A prototype is the L2-normalized mean of the features of a component. The nearest by cosine is the one
    with the largest softmax(cosine / temperature), GPC's prototypical contrast, at any temperature; GPC also trains the backbone
    by that contrast, which is frozen here. "kmeans": semi-supervised k-means of L2-normalized features; a prototype is a
    centroid, and the number is that for which plain k-means clusters the labeled images best.
    """

    named = ("algorithm",)

    def __init__(
        self,
        *,
        algorithm: Algorithm = "gmm",
        known: float = 0.5,
        labeled: float = 0.5,
        classes: int | None = None,
        max_classes: int = 1000,
        seed: int = 0,
    ) -> None:
        if algorithm not in ("gmm", "kmeans"):
            raise ValueError(f'algorithm is "gmm" or "kmeans", got {algorithm!r}')
        if not 0 < known < 1:
            raise ValueError(f"known is the share of the classes that have labels, above 0 and below 1, got {known}")
        if not 0 < labeled <= 1:
            raise ValueError(
                f"labeled is the share of the images of a known class with a label, above 0 and up to 1, got {labeled}"
            )
        if classes is not None and classes < 2:
            raise ValueError(f"classes is at least 2, or null to estimate the number, got {classes}")
        if max_classes < 2:
            raise ValueError(f"max_classes is at least 2, got {max_classes}")
        self.algorithm, self.known, self.labeled = algorithm, known, labeled
        self.classes, self.max_classes, self.seed = classes, max_classes, seed

    def __call__(self, train: Features, test: HeldOut[Features]) -> list[Score]:
        if train.multi_label:
            raise ValueError("category discovery is for one label per image, and these are multi-hot")
        known, given = draw_labeled(train.y, self.known, self.labeled, self.seed)
        rows = unit_rows(train.x.float())
        prototypes = self._prototypes(rows, given, len(known))
        held = test.read()
        nearest = nearest_centroid(unit_rows(held.x.float()), prototypes)[0]  # unit prototypes: by cosine
        right = torch.from_numpy(matched_images(nearest.numpy(force=True), held.y.numpy(force=True)))
        of_known = torch.isin(held.y, known).cpu()
        true = len(train.y.unique())
        detail = (
            f"{len(prototypes)} prototypes, {true} classes of which {len(known)} known, {int((given >= 0).sum())} of "
        )
        detail += f"{len(train)} train images labeled; matched with test labels, matching held fixed"
        if unseen := unseen_classes(LabelCounts.of(train.y), LabelCounts.of(held.y)):
            detail = joined(detail, f"novel without train images: {class_words(unseen, train.class_names)}")
        scores = []
        for metric, counted in (
            ("accuracy", of_known | True),
            ("known_accuracy", of_known),
            ("novel_accuracy", ~of_known),
        ):
            if n := int(counted.sum()):
                score = proportion(metric, int(right[counted].sum()), n, detail)
                scores.append(replace(score, per_image=right[counted].numpy().astype(np.float32)))
        if self.classes is None:
            words = f"true number {true}; estimated on train alone, no interval"
            scores.append(Score("estimated_classes", len(prototypes), None, None, 0, words, share=False))
        return scores

    def _prototypes(self, rows: Tensor, given: Tensor, known: int) -> Tensor:
        """float[K, D] from train features and given labels alone."""
        free = int((given < 0).sum())
        most = min(self.max_classes, known + free)
        if self.classes is not None and not known <= self.classes <= known + free:
            raise ValueError(
                f"classes is at least the {known} known classes, and at most those and one for each of {free} unlabeled train "
                f"images; got {self.classes}"
            )
        if self.classes is None and most < known:
            raise ValueError(f"max_classes is less than the {known} known classes, got {self.max_classes}")
        if self.algorithm == "kmeans":
            k = self.classes or count_by_labeled_accuracy(rows, given, most, self.seed, self.progress)
            return semi_supervised_k_means(rows, given, k, self.seed)[0]
        z = principal_components(rows)
        clusters = mixture_clusters(z, given.cpu(), self.classes, most, self.seed, self.progress)
        otherwise = rows.new_zeros(int(clusters.max()) + 1, rows.shape[1])
        return unit_rows(cluster_means(rows, clusters.to(rows.device), otherwise))

    def describe(self) -> str:
        number = f"{self.classes} classes"
        if self.algorithm == "gmm":
            algorithm = (
                f"semi-supervised Gaussian mixture, diagonal, on the principal components with {VARIANCE:.0%} of the variance, "
                f"at most {DIMENSIONS}"
            )
            how, prototypes = "splits and merges", "the nearest mean of a component by cosine"
        else:
            algorithm = f"semi-supervised k-means, the start of {STARTS} with the smallest inertia"
            how, prototypes = "the accuracy of labeled images", "the nearest centroid"
        if self.classes is None:
            number = f"number of classes estimated by {how}, at most {self.max_classes}"
        return (
            f"generalized category discovery on frozen L2-normalized features: {self.known:.0%} of the classes known, "
            f"{self.labeled:.0%} of their train images labeled (seed {self.seed}), all others unlabeled; {algorithm}, "
            f"{number}; each test image to {prototypes}, matched one-to-one with classes over all test images"
        )
