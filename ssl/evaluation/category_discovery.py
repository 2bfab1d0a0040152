"""Generalized category discovery on frozen features: some classes have some labels, the others are to be found.

The protocol is that of Vaze et al. (CVPR 2022): labeled images of known classes, unlabeled images of known and novel ones, and
one matching of clusters and classes over all images that are scored. Two algorithms: a semi-supervised Gaussian mixture that
splits and merges components, after GPC (Zhao et al., ICCV 2023) and DeepDPM (Ronen et al., CVPR 2022); and the semi-supervised
k-means of Vaze et al.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.curation.hierarchical_kmeans import k_means, nearest_centroid
from wildfern.ssl.evaluation.clustering import matched_images
from wildfern.ssl.evaluation.evaluator import Evaluator, Features, HeldOut, Score
from wildfern.ssl.evaluation.label_counts import LabelCounts, class_words, unseen_classes
from wildfern.ssl.evaluation.metrics import joined, proportion
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.tracking.progress import SILENT, Progress

Algorithm = Literal["gmm", "kmeans"]
STARTS, ITERATIONS = 10, 100  # of semi-supervised k-means; the public code of Vaze et al.
KAPPA = 1e-4  # images that the prior of a mean counts for; the public code of GPC
# The mixture is of the first principal components that have this share of the variance, at most so many of them.
VARIANCE, DIMENSIONS = 0.95, 64
NOVEL = (0.5, 2, 4)  # components per known class with which splits and merges begin; the likeliest result counts
ROUNDS = 50  # of splits and merges at most; about five are needed
TOLERANCE = 1e-6  # of the mean log-likelihood, relative, at which expectation maximization ends


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


def semi_supervised_k_means(
    rows: Tensor, given: Tensor, k: int, seed: int, starts: int = STARTS
) -> tuple[Tensor, Tensor]:
    """Centroids float[k, D] and clusters int64[N] of float[N, D] (Vaze et al.).

    `given` int64[N]: the cluster of a labeled image, which it keeps, numbered from 0; or -1. The first centroids are the means
    of the labeled images, the others start by k-means++ among the unlabeled ones, of which there is at least one; of `starts`,
    the one with the smallest inertia is returned.
    """
    shown, known = given >= 0, int(given.max()) + 1
    free = rows[~shown]
    means = _means(rows[shown], given[shown], rows.new_zeros(known, rows.shape[1]))
    best, least = None, math.inf
    for start in range(starts):
        generator = torch.Generator().manual_seed(key("semi-supervised k-means", seed, start))
        centroids = means if known else free[torch.randint(len(free), (1,), generator=generator).to(free.device)]
        distance = nearest_centroid(free, centroids)[1]
        while len(centroids) < k:
            cumulative = distance.square().cumsum(0)
            draw = torch.rand(1, generator=generator).to(cumulative) * cumulative[-1]
            drawn = free[torch.searchsorted(cumulative, draw, right=True).clamp(max=len(free) - 1)]
            centroids = torch.cat([centroids, drawn])
            distance = torch.minimum(distance, nearest_centroid(free, drawn)[1])
        clusters, before = given.clone(), None
        for _ in range(ITERATIONS):
            clusters[~shown] = nearest_centroid(free, centroids)[0]
            if before is not None and torch.equal(clusters, before):
                break
            centroids, before = _means(rows, clusters, centroids), clusters.clone()
        inertia = (rows - centroids[clusters]).square().sum().item()
        if best is None or inertia < least:
            best, least = (centroids, clusters), inertia
    assert best is not None
    return best


def _means(rows: Tensor, clusters: Tensor, otherwise: Tensor) -> Tensor:
    """The mean of each cluster, or the row of `otherwise` float[k, D] for an empty one."""
    counts = clusters.bincount(minlength=len(otherwise))[:, None]
    sums = torch.zeros_like(otherwise).index_add_(0, clusters, rows)
    return torch.where(counts > 0, sums / counts.clamp(min=1), otherwise)


def count_by_labeled_accuracy(rows: Tensor, given: Tensor, most: int, seed: int, progress: Progress = SILENT) -> int:
    """The number of classes of float[N, D], from that of the known ones up to `most` (Vaze et al.).

    The number of clusters of plain k-means for which the accuracy of the labeled images under their best matching is highest,
    searched by Brent's method.
    """
    shown, tried = given >= 0, 0

    def errors(k: float) -> float:
        nonlocal tried
        tried += 1
        progress.detail(f"{round(k)} clusters, try {tried}")
        clusters = k_means(rows, round(k), seed=key("number of classes", seed)).of_item
        return -float(matched_images(clusters[shown].numpy(force=True), given[shown].numpy(force=True)).mean())

    known = int(given.max()) + 1
    return round(minimize_scalar(errors, bounds=(known, most), method="bounded", options={"xatol": 1}).x)


@dataclass(frozen=True)
class Components:
    """Statistics of K components: `n` float64[K] images, the `sums` and the sums of `squares` of these, float64[K, d]."""

    n: Tensor
    sums: Tensor
    squares: Tensor

    @classmethod
    def of(cls, z: Tensor, shares: Tensor) -> "Components":
        """Of images float64[N, d] with shares of the components float64[N, K]."""
        return cls(shares.sum(0), shares.T @ z, shares.T @ z.square())


@dataclass(frozen=True)
class Prior:
    """Conjugate prior of a diagonal Gaussian: normal-inverse-χ² in each dimension (Murphy, 2007, section 5).

    A variance σ² is believed to be `variance` as if measured on `images` images, and the component's mean is N(`mean`, σ² / κ)
    with κ = `KAPPA`.
    """

    mean: Tensor
    variance: Tensor
    images: float

    @classmethod
    def of(cls, z: Tensor, given: Tensor) -> "Prior":
        """From all images the mean; from the labeled ones how wide a class is, on how many of a class that was measured."""
        shown, known = given >= 0, int(given.max()) + 1
        rows = z[shown]
        if len(rows) == known:
            raise ValueError(
                "labeled: no known class has two labeled images, from which the mixture learns how wide a class is; raise "
                "labeled, or set algorithm: kmeans"
            )
        means = _means(rows, given[shown], z.new_zeros(known, z.shape[1]))
        within = (rows - means[given[shown]]).square().sum(0) / (len(rows) - known)
        return cls(z.mean(0), torch.maximum(within, TOLERANCE * z.var(0)), len(rows) / known)

    def posterior(self, components: Components) -> tuple[Tensor, Tensor]:
        """Mean and variance of each component, float64[K, d]."""
        n = components.n[:, None]
        own = components.sums / n.clamp(min=TOLERANCE)
        scatter = (components.squares - n * own.square()).clamp(min=0)
        scatter = scatter + KAPPA * n / (KAPPA + n) * (own - self.mean).square()
        mean = (KAPPA * self.mean + components.sums) / (KAPPA + n)
        return mean, (self.images * self.variance + scatter) / (self.images + n)

    def log_weight(self, components: Components) -> Tensor:
        """log Γ(n) h(Z) of each component, float64[K]: h is the marginal likelihood of its images Z.

        Up to a constant, their sum is the log-probability of the partition in a Dirichlet process of concentration 1.
        """
        n, nu = components.n[:, None], torch.tensor(self.images, dtype=torch.float64)
        likelihood = (
            torch.lgamma((nu + n) / 2)
            - torch.lgamma(nu / 2)
            + 0.5 * (KAPPA / (KAPPA + n)).log()
            + nu / 2 * (nu * self.variance).log()
            - (nu + n) / 2 * ((nu + n) * self.posterior(components)[1]).log()
            - n / 2 * math.log(math.pi)
        )
        return torch.lgamma(components.n) + likelihood.sum(1)


def expectation_maximization(z: Tensor, given: Tensor, shares: Tensor, prior: Prior) -> Tensor:
    """Shares of the components, float64[N, K'], at convergence; labeled images keep theirs, and empty components go."""
    shown, known, before = given >= 0, int(given.max()) + 1, -math.inf
    for _ in range(ITERATIONS):
        used = shares.sum(0) >= 1
        used[:known] = True
        shares = F.normalize(shares[:, used], p=1, dim=1)
        components = Components.of(z, shares)
        mean, variance = prior.posterior(components)
        density = z.square() @ (1 / variance).T - 2 * z @ (mean / variance).T + (mean.square() / variance).sum(1)
        density = -0.5 * (density + variance.log().sum(1)) + components.n.log()
        shares = density.softmax(1)
        shares[shown] = F.one_hot(given[shown], shares.shape[1]).to(shares)
        likelihood = density.logsumexp(1)[~shown].mean().item()
        if abs(likelihood - before) <= TOLERANCE * abs(likelihood):
            break
        before = likelihood
    return shares


def split_and_merge(z: Tensor, given: Tensor, shares: Tensor, prior: Prior, most: int, seed: int) -> Tensor:
    """Shares float64[N, K'] after components were split and merged until none changes, at most `most` of them.

    A round proposes to split each component, by k-means of its images, and then to merge each novel one with the nearest. Either
    is accepted with probability min(1, H). The Hastings ratio H is Γ(n₁) h(Z₁) Γ(n₂) h(Z₂) / (Γ(n) h(Z)) for a split (Chang &
    Fisher, 2013; DeepDPM and GPC with concentration 1), and the inverse for a merge. As in GPC, labeled images of a class stay
    together and known classes apart; unlike there, unlabeled images can be split off a known class, or merged with it.
    """
    known = int(given.max()) + 1
    rng = np.random.Generator(np.random.Philox(key=key("split and merge", seed)))
    for _ in range(ROUNDS):
        shares, splits = _split(z, given, shares, prior, most, rng)
        shares, merges = _merge(z, expectation_maximization(z, given, shares, prior), known, prior, rng)
        if not splits + merges:
            break
        shares = expectation_maximization(z, given, shares, prior)
    return shares


def _split(
    z: Tensor, given: Tensor, shares: Tensor, prior: Prior, most: int, rng: np.random.Generator
) -> tuple[Tensor, int]:
    """Shares after the splits that were accepted, and their number."""
    owner, columns, added = shares.argmax(1), [*shares.T.clone()], []
    for number, column in enumerate(columns):
        members = (owner == number).nonzero()[:, 0]
        fixed = torch.where(given[members] >= 0, 0, -1)
        if len(members) < 2 or fixed.min() == 0 or len(columns) + len(added) >= most:
            continue
        halves = semi_supervised_k_means(z[members], fixed, 2, int(rng.integers(2**32)), starts=1)[1]
        parts = Components.of(z[members], F.one_hot(halves, 2).to(z))
        whole = Components(*(part.sum(0, keepdim=True) for part in (parts.n, parts.sums, parts.squares)))
        ratio = prior.log_weight(parts).sum() - prior.log_weight(whole).sum()
        if (parts.n > 0).all() and ratio > math.log(rng.random()):
            other = members[halves == 1]
            added.append(torch.zeros_like(column).index_fill_(0, other, 1))
            column[other] = 0
    return torch.stack([*columns, *added], dim=1), len(added)


def _merge(z: Tensor, shares: Tensor, known: int, prior: Prior, rng: np.random.Generator) -> tuple[Tensor, int]:
    """Shares after the merges that were accepted, the best first and none twice, and their number."""
    hard = F.one_hot(shares.argmax(1), shares.shape[1]).to(shares)
    occupied = hard.any(0)
    occupied[:known] = True
    shares, components = shares[:, occupied], Components.of(z, hard[:, occupied])
    n, sums, squares = components.n, components.sums, components.squares
    novel, weight = torch.arange(known, len(n)), prior.log_weight(components)
    distance = torch.cdist(sums[novel] / n[novel, None], sums / n[:, None])
    distance[novel - known, novel] = math.inf
    nearest = distance.argmin(1)
    together = Components(*(part[novel] + part[nearest] for part in (n, sums, squares)))
    ratio = prior.log_weight(together) - weight[novel] - weight[nearest]
    changed: set[int] = set()
    gone = []
    for place in ratio.argsort(descending=True).tolist():
        one, other = known + place, int(nearest[place])
        if not changed & {one, other} and ratio[place] > math.log(rng.random()):
            changed |= {one, other}
            shares[:, other] += shares[:, one]
            gone.append(one)
    return shares[:, [k for k in range(shares.shape[1]) if k not in gone]], len(gone)


def mixture_clusters(
    z: Tensor, given: Tensor, classes: int | None, most: int, seed: int, progress: Progress = SILENT
) -> Tensor:
    """The component int64[N] of each image float64[N, d], of `classes` components or of as many as splits and merges find.

    These begin with several numbers of components; of their results, the partition with the greatest probability is returned.
    """
    known, prior = int(given.max()) + 1, Prior.of(z, given)
    best, greatest = None, -math.inf
    begin = [classes] if classes else sorted({min(most, known + max(1, round(share * known))) for share in NOVEL})
    for number, k in enumerate(begin):
        progress.count(number, len(begin), "starts of the mixture")
        shares = F.one_hot(semi_supervised_k_means(z, given, k, seed)[1], k).double()
        shares = expectation_maximization(z, given, shares, prior)
        if classes is None:
            shares = split_and_merge(z, given, shares, prior, most, seed)
        owner = shares.argmax(1).unique(return_inverse=True)[1]
        weight = prior.log_weight(Components.of(z, F.one_hot(owner).double())).sum().item()
        if best is None or weight > greatest:
            best, greatest = owner, weight
    assert best is not None
    return best


def principal_components(rows: Tensor) -> Tensor:
    """The first principal components of float[N, D] with `VARIANCE` of the variance, at most `DIMENSIONS`: float64[N, d], CPU."""
    centered = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh((centered.T @ centered).cpu().double() / len(rows))
    values = values.flip(0).clamp(min=0)
    if values[0] <= TOLERANCE**2:
        raise ValueError("the train features are all in one direction: the backbone has collapsed")
    d = int((values.cumsum(0) < VARIANCE * values.sum()).sum()) + 1
    return centered.cpu().double() @ vectors.flip(1)[:, : min(d, DIMENSIONS)]


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
        rows = F.normalize(train.x.float(), dim=1)
        prototypes = self._prototypes(rows, given, len(known))
        held = test.read()
        nearest = nearest_centroid(F.normalize(held.x.float(), dim=1), prototypes)[0]  # unit prototypes: by cosine
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
        return F.normalize(_means(rows, clusters.to(rows.device), otherwise), dim=1)

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
