"""Imbalanced training data: a seeded choice of images with fewer and fewer of each class."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wildfern.generators.counter_rng import fold, key
from wildfern.ssl.data.base import DataError, Source
from wildfern.ssl.data.subset import Subset

Kind = Literal["linear", "exp", "step"]
LEVELS = 10  # Zheng et al. (CACR): ten sizes, also for the 100 classes of CIFAR-100


def class_shares(classes: int, kind: Kind, ratio: float | None = None) -> NDArray[np.float64]:
    """The share of its images that each class keeps, float64[classes]: the last class is the largest and keeps all.

    Without `ratio` the published shares of Zheng et al. (CACR, imbalanced CIFAR): classes are in L = min(10, classes) levels
    l = 1 … L of about equal numbers of classes, with l/L (linear) or e^(l - L) (exp). With `ratio`, the largest share by the
    smallest: linear from 1/ratio to 1; exp ratio^(-(K - 1 - i)/(K - 1)) for class i of K, the sizes of CIFAR-LT (Cui et al.,
    2019), there in the other order; step 1/ratio for the first half of the classes, 1 for the others.
    """
    number = np.arange(classes)
    if kind == "step":
        if ratio is None:
            raise DataError("imbalance: kind step needs a ratio, for example ratio: 10")
        return np.where(number < classes // 2, 1.0 / ratio, 1.0)
    if ratio is None:
        levels = min(LEVELS, classes)
        level = number * levels // classes + 1
        return level / levels if kind == "linear" else np.exp(level) / np.exp(levels)
    place = (classes - 1 - number) / max(1, classes - 1)  # 0 for the last class
    return 1.0 - (1.0 - 1.0 / ratio) * place if kind == "linear" else (1.0 / ratio) ** place


def imbalanced_items(
    labels: NDArray[np.int64], classes: int, kind: Kind, *, ratio: float | None = None, seed: int = 0, minimum: int = 0
) -> NDArray[np.int64]:
    """The items that are kept, ascending, of images with these labels int64[N] (-1: unlabeled, never kept).

    A class keeps the whole part of its share (`class_shares`) of the images of the largest class, at least `minimum`, at most
    all that it has: those that come first by a hash of (seed, item), so that a smaller choice is a part of a larger one.
    """
    present = np.bincount(labels[labels >= 0], minlength=classes)
    # The sum and the quotient of powers may be a little less than a whole number.
    counts = np.floor(class_shares(classes, kind, ratio) * present.max(initial=0) + 1e-9).astype(np.int64)
    counts = np.minimum(np.maximum(counts, minimum), present)
    ranks = fold(np.uint64(key("imbalance", seed)), np.arange(len(labels)))
    kept = np.zeros(len(labels), bool)
    for label, count in enumerate(counts.tolist()):
        members = np.flatnonzero(labels == label)
        kept[members[np.argsort(ranks[members], kind="stable")][:count]] = True
    return np.flatnonzero(kept)


def imbalanced(
    source: Source, name: str, kind: Kind, *, ratio: float | None = None, seed: int = 0, minimum: int = 0
) -> Subset:
    """The part of a labeled source that `imbalanced_items` keeps; `name` is the source's name, for errors.

    Reads the labels. Raises DataError for an endless source, for one without labels, and for several labels an image.
    """
    if source.num_items is None:
        raise DataError(f"imbalance needs a finite set of images, but {name} is endless")
    labels, classes = getattr(source, "labels", None), source.num_classes
    if labels is None or classes is None:
        also = "; labels: folders reads them from the names of folders" if name.startswith("folder:") else ""
        raise DataError(f"imbalance needs labels, but {name} has none{also}")
    if labels.ndim != 1:
        raise DataError(f"imbalance needs one label for each image, but images of {name} have several")
    items = imbalanced_items(labels, classes, kind, ratio=ratio, seed=seed, minimum=minimum)
    if not len(items):
        raise DataError(f"imbalance leaves none of the {source.num_items:,} images of {name}: set a minimum")
    subset = Subset(source, items, f"imbalance {kind}")
    if unlabeled := int((labels < 0).sum()):
        subset.note(f"imbalance leaves out the {unlabeled:,} unlabeled images of {name}")
    counts = np.bincount(labels[items], minlength=classes)
    if empty := int((counts == 0).sum()):
        subset.note(f"imbalance leaves {empty} of the {classes} classes of {name} without images")
    return subset
