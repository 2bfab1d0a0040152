"""Measures of a frozen backbone that need no labels: LiDAR, RankMe, alignment, uniformity and the deviation of features.

LiDAR (Thilak et al., ICLR 2024) is the effective rank of a linear discriminant analysis in which each image is a class of its
own, and its augmented views are the samples of that class.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform
from wildfern.registry import register
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.evaluation.diagnostics import feature_std, rank_me, uniformity
from wildfern.ssl.evaluation.evaluator import Evaluator, HeldOut, LabeledImages, Score
from wildfern.ssl.evaluation.features import device_of, extract_features, frozen
from wildfern.ssl.evaluation.metrics.classification_scores import mean_score
from wildfern.ssl.evaluation.preprocessing import normalized
from wildfern.ssl.evaluation.unit_rows import unit_rows
from wildfern.ssl.tracking.progress import SILENT, Progress

RANKED = 25_600  # images of RankMe at most, as in its paper (Garrido et al., 2023)
EPSILON = 1e-7  # RankMe's, for LiDAR too
BATCH = 256  # views
LEAST_DELTA = 1e-30  # smaller ones are below the rounding of any covariance but that of features of less than 1e-7


def lidar(views: Tensor, delta: float = 1e-4, epsilon: float = EPSILON) -> Tensor:
    """Effective rank of the LDA matrix of float[n, q, D], q views of each of n images; scalar in about [1, min(n - 1, D)].

    Thilak et al. (2024), eq. 1-4, with unbiased covariances: the exp of the entropy of λ / ‖λ‖₁ + ε for the D eigenvalues λ of
    Σw^(-1/2) Σb Σw^(-1/2), where Σw = within-image covariance + δ I. Compare it at the same n, q, D and δ only. Computed in
    float64, on the CPU. NaN if an entry is not finite. Raises ValueError for fewer than two images or views, and for a δ that
    is lost in the rounding of a singular within-image covariance.
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2:
        raise ValueError(f"LiDAR needs features [n, q, D] of two views of two images, got {list(views.shape)}")
    if not views.isfinite().all():
        return torch.tensor(torch.nan, dtype=torch.float64)
    views = views.cpu().double()
    n, q, dim = views.shape
    means = views.mean(1)
    between = means - means.mean(0)
    within = (views - means[:, None]).flatten(0, 1)
    sigma_w = within.T @ within / (n * (q - 1)) + delta * torch.eye(dim, dtype=torch.float64)
    # L⁻¹ Σb L⁻ᵀ of Σw = L Lᵀ has the same eigenvalues as the symmetric form: both are similar to Σw⁻¹ Σb.
    lower, failed = torch.linalg.cholesky_ex(sigma_w)
    diagonal = sigma_w.diagonal()
    rounding = torch.finfo(torch.float64).eps * dim  # of a pivot, as a share of its entry of the diagonal
    if failed or (lower.diagonal().square() <= rounding * diagonal).any():
        raise ValueError(
            f"delta {delta:g} is lost in the rounding of the covariance of these features within an image, with variances up to "
            f"{float(diagonal.max()):.3g}: set a larger delta, such as {max(1e-4, 1e-9 * float(diagonal.max())):.1g}"
        )
    whitened = torch.linalg.solve_triangular(lower, between.T, upper=False)
    eigenvalues = torch.linalg.eigvalsh(whitened @ whitened.T / (n - 1)).clamp(min=0)
    p = eigenvalues / eigenvalues.sum().clamp(min=epsilon) + epsilon
    return (-(p * p.log()).sum()).exp()


def view_features(
    images: LabeledImages,
    places: NDArray[np.int64],
    views: int,
    *,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    jitter: float = 0.8,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Tensor:
    """Features float32[n, views, D] of SimCLR views of the images at these places (int64[n]), with the frozen backbone.

    A view is a function of the image, its place, the number of the view and the seed. Raises ValueError for settings out of
    range.
    """
    preprocessing, backbone = images.preprocessing, images.backbone
    device = torch.device(preprocessing.device) if preprocessing.device is not None else device_of(backbone)
    channels = images.pixels.shape[3]
    # Not normalized here: a backbone may have a mean and deviation that views cannot have.
    zeros_ones = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    settings = {"crop_scale": crop_scale, "jitter": jitter, "interpolation": preprocessing.interpolation}
    augment = simclr(size=min(images.pixels.shape[1:3]), count=views, **settings, **zeros_ones).to(device)
    backbone.to(device)
    rows = []
    each = max(1, BATCH // views)
    with frozen(backbone), torch.autocast(device.type, torch.bfloat16, enabled=preprocessing.precision == "bf16"):
        for start in range(0, len(places), each):
            progress.count(start, len(places), "images", f"{views} views of each")
            chosen = places[start : start + each]
            [group] = augment(augment.prepare(images.pixels[chosen], key("label free", seed), 0, chosen))
            made = normalized(group.transpose(0, 1).flatten(0, 1), preprocessing.mean, preprocessing.std)
            rows.append(backbone(made).float().unflatten(0, (len(chosen), views)))
    return torch.cat(rows)


@register("evaluator", "label_free")
class LabelFree(Evaluator):
    """Label-free measures of test images: LiDAR, RankMe, alignment, uniformity and feature deviation.

    LiDAR, alignment and uniformity are of SimCLR views of `images` random test images: LiDAR of `views` of each, alignment of the
    first two, uniformity of the first. RankMe and feature_std are of the images without augmentation, at most 25,600. `delta` is
    the δ of LiDAR. Train and labels are not used.

    Of two backbones on the same images, with the same settings and feature dimensions, a larger LiDAR and RankMe tend to go with
    a better linear probe. A smaller alignment or uniformity is better only if the other is not worse, and a feature_std near 0 is
    that of a collapsed backbone.
    """

    needs = "images"
    needs_labels = False

    def __init__(
        self,
        *,
        images: int = 1000,
        views: int = 10,
        delta: float = 1e-4,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        jitter: float = 0.8,
        seed: int = 0,
    ) -> None:
        if images < 2 or views < 2:
            raise ValueError(f"images and views are at least 2, got images={images}, views={views}")
        if not LEAST_DELTA <= delta < np.inf:
            raise ValueError(f"delta is a positive number, at least {LEAST_DELTA:g}, got {delta}")
        simclr(count=views, crop_scale=crop_scale, jitter=jitter)  # refuses impossible ones
        self.images, self.views, self.delta = images, views, delta
        self.crop_scale, self.jitter, self.seed = crop_scale, jitter, seed

    def __call__(self, train: LabeledImages, test: HeldOut[LabeledImages]) -> list[Score]:
        held = test.read()
        if len(held) < 2:
            raise ValueError("label-free measures need at least two test images, got 1")
        draws = uniform(fold(np.uint64(key("label free images", self.seed)), np.arange(len(held))), 1)[:, 0]
        order = draws.argsort()
        chosen, ranked = np.sort(order[: self.images]), np.sort(order[:RANKED])
        settings = {"crop_scale": self.crop_scale, "jitter": self.jitter, "seed": self.seed}
        views = view_features(held, chosen, self.views, **settings, progress=self.progress)
        preprocessing = {name: value for name, value in vars(held.preprocessing).items() if name != "interpolation"}

        def told(done: int) -> None:
            self.progress.count(done, len(ranked), "images", "without augmentation")

        plain = extract_features(held.backbone, [(held.pixels[ranked], None)], **preprocessing, done=told).x
        n, q, dim = views.shape
        first, second = unit_rows(views[:, 0]), unit_rows(views[:, 1])
        distances = (first - second).square().sum(1)
        measures = (
            ("lidar", lidar(views, self.delta), n, f"at most {min(n - 1, dim)}; {q} views of each image"),
            ("rank_me", rank_me(plain), len(plain), f"at most {min(len(plain), dim)}; images without augmentation"),
            ("uniformity", uniformity(first), n, "first view of each image"),
            ("feature_std", feature_std(plain), len(plain), "images without augmentation"),
        )
        no_interval = "no interval: repeated images of a resample would change it"
        scores = [
            Score(metric, value.item(), None, None, count, f"{detail}; {no_interval}", share=False)
            for metric, value, count, detail in measures
        ]
        aligned = mean_score("alignment", distances, "squared distance of the first two views", share=False)
        return [*scores[:2], aligned, *scores[2:]]

    def describe(self) -> str:
        low, high = self.crop_scale
        return (
            f"label-free measures of backbone features of test images: LiDAR of {self.images} images × {self.views} SimCLR views "
            f"(crops of {low:g} to {high:g} of the area, color jitter with probability {self.jitter:g}, δ = {self.delta:g}), "
            f"RankMe of up to {RANKED} images without augmentation, alignment and uniformity of one or two of the views"
        )
