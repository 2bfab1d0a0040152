"""Semi-supervised Gaussian mixture that splits and merges its components, so that it also finds their number.

After GPC (Zhao et al., ICCV 2023) and DeepDPM (Ronen et al., CVPR 2022): diagonal covariances with a conjugate prior, learned
from labeled images; splits and merges by the Hastings ratio of a Dirichlet process mixture.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.evaluation.protocols.semi_supervised_k_means import cluster_means, semi_supervised_k_means
from wildfern.ssl.tracking.progress import SILENT, Progress

ITERATIONS = 100  # of expectation maximization at most
KAPPA = 1e-4  # images that the prior of a mean counts for; the public code of GPC
# The mixture is of the first principal components that have this share of the variance, at most `DIMENSIONS` of them.
VARIANCE, DIMENSIONS = 0.95, 64
NOVEL = (0.5, 2, 4)  # components per known class with which splits and merges begin; the likeliest result counts
ROUNDS = 50  # of splits and merges at most; about five are needed
TOLERANCE = 1e-6  # of the mean log-likelihood, relative, at which expectation maximization ends


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
        means = cluster_means(rows, given[shown], z.new_zeros(known, z.shape[1]))
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
