"""Evaluation beside scikit-learn and the bare operations: sweep of strengths, kNN, extraction of features.

    wildfern bench evaluation

Features are drawn here: classes in a space whose variances fall off like a power law, as those of networks do. scikit-learn fits
each strength from zero with its default tolerance, as its users do; both choose among seven strengths on the same held-out fifth.
With `--seconds` below 60 the sweep has fewer images, as scikit-learn takes minutes for all.
"""

import resource
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from wildfern.benchmarks.result import Benchmark, compare
from wildfern.ssl.data import Images, Source
from wildfern.ssl.evaluation import Features, FeatureStore, MemoryBudget, fit_linear_probe
from wildfern.ssl.evaluation.dataset_reader import DatasetReader
from wildfern.ssl.evaluation.features import frozen
from wildfern.ssl.evaluation.preprocessing import Preprocessing, normalized
from wildfern.ssl.evaluation.protocols.knn import KNN, knn_predict
from wildfern.ssl.evaluation.protocols.linear_probe import STRENGTHS
from wildfern.ssl.evaluation.protocols.logistic_regression import COMPARED, RegularizationPath
from wildfern.ssl.evaluation.spilled_array import SpilledArray
from wildfern.ssl.evaluation.stratified import class_ranks
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking.progress import SILENT

WIDTH = 512
# Images, classes, and how far apart these are: about two in three images are classified right.
SWEEPS = ((50_000, 10, 0.21), (10_000, 100, 0.45))
SHORT = 4_000  # images of a sweep when time is short
BANK, QUERIES, CLASSES, K = 50_000, 4_096, 1_000, 20
IMAGENET = (1_281_167, 2_048, 1_000)
PART = 20_000  # images of it that are solved here


def run(seconds: float) -> Benchmark:
    """Images per second of each part; figures project the sweep to ImageNet."""
    rows, figures = [], {}
    for images, classes, apart in SWEEPS:
        found, gap = _sweep(images if seconds >= 60 else SHORT, classes, apart)
        rows += found
        figures[f"sweep_{classes}_classes_points_above_scikit_learn"] = gap
    rows += _knn(seconds) + _extraction(seconds)
    return Benchmark(
        "evaluation",
        "images/s",
        "sweep: 7 strengths of an L2-regularized logistic regression, the best one on a held-out fifth fitted to all. knn: "
        f"{K} neighbors of {BANK:,} x {WIDTH}, {CLASSES:,} classes. extraction: a ResNet-18 with 16 to 128 channels, 32 px.",
        rows,
        figures | _imagenet(),
    )


def drawn(images: int, width: int, classes: int, apart: float = 0.3, seed: int = 0) -> Features:
    """Features around centers of the classes, `apart` as a multiple of their scale; nonnegative, as after a ReLU."""
    generator = torch.Generator().manual_seed(7)
    scale = torch.arange(1, width + 1).float() ** -0.7
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    centers = torch.randn(classes, width, generator=generator) * scale * apart
    generator.manual_seed(seed)
    y = torch.randint(classes, (images,), generator=generator)
    noise = 2.2 * torch.randn(images, width, generator=generator) * scale
    return Features(((centers[y] + noise) @ rotation + 0.3).relu(), y)


def _sweep(images: int, classes: int, apart: float) -> tuple[list[dict], float]:
    """Rows of the two alternatives, each once in turn, and by how many points ours is right more often on other images."""
    train, test = drawn(images, WIDTH, classes, apart), drawn(10_000, WIDTH, classes, apart, seed=1)
    accuracies: dict[str, float] = {}

    def by_sklearn() -> None:
        held = (class_ranks(train.y, 0) % 5 == 0).numpy()
        x, y = train.x.numpy(), train.y.numpy()
        scaler = StandardScaler().fit(x[~held])
        fitted, other = scaler.transform(x[~held]), scaler.transform(x[held])
        scores = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=1 / (strength * len(fitted)), max_iter=1000).fit(fitted, y[~held])
            scores.append(model.score(other, y[held]))
        scaler = StandardScaler().fit(x)
        strength = STRENGTHS[int(np.argmax(scores))]
        model = LogisticRegression(C=1 / (strength * len(x)), max_iter=1000).fit(scaler.transform(x), y)
        accuracies["scikit-learn"] = model.score(scaler.transform(test.x.numpy()), test.y.numpy())

    def by_wildfern() -> None:
        accuracies["wildfern"] = fit_linear_probe(train).classifier.accuracy(test)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that did not suffice
        seconds = {"scikit-learn": _seconds(by_sklearn), "wildfern": _seconds(by_wildfern)}
    case = f"sweep, {images:,} x {WIDTH}, {classes} classes"
    rows = [
        {"case": case, "what": name, "rate": images / time_taken, "ratio": None} for name, time_taken in seconds.items()
    ]
    rows[1]["ratio"] = rows[1]["rate"] / rows[0]["rate"]
    return rows, 100 * (accuracies["wildfern"] - accuracies["scikit-learn"])


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _knn(seconds: float) -> list[dict]:
    bank, queries = drawn(BANK, WIDTH, CLASSES), drawn(QUERIES, WIDTH, CLASSES, seed=1)

    def bare() -> None:
        keys = F.normalize(bank.x, dim=1).T
        for rows in F.normalize(queries.x, dim=1).split(512):
            (rows @ keys).topk(K, dim=1)

    things = {
        "matrix product and top-k": bare,
        "wildfern: votes and labels": lambda: knn_predict(bank, queries.x, k=K),
    }
    return compare(f"knn, {QUERIES:,} images", QUERIES, things, seconds)


class _InMemory(Source):
    """Random images with labels."""

    class_names = ["a", "b"]  # noqa: RUF012  (as of any source)

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self._pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, (num_items, 32, 32, 3), np.uint8)

    @property
    def fixed_size(self) -> bool:
        return True

    def read(self, items) -> Images:
        return Images(self._pixels[items], np.asarray(items) % 2)


def _extraction(seconds: float) -> list[dict]:
    source, settings = _InMemory(2048), Preprocessing(size=32)
    backbone = Backbone("resnet18", stem="cifar", stem_width=32, channels=(16, 32, 64, 128))
    images = normalized(torch.from_numpy(source._pixels).permute(0, 3, 1, 2).float() / 255, settings.mean, settings.std)

    def bare() -> None:
        with frozen(backbone):
            for part in images.split(256):
                backbone(part)

    def extract() -> None:
        empty = _InMemory(2)
        data = DatasetReader(
            {"x": backbone},
            {"x": settings},
            {"train": source, "test": empty},
            "memory",
            {"knn": KNN()},
            256,
            FeatureStore(),
            {},
            SILENT,
        )
        data.read()

    things = {"bare forward pass of prepared images": bare, "wildfern: read, prepare, forward, store": extract}
    return compare("extraction, images in memory", 2048, things, seconds)


def _imagenet() -> dict[str, float]:
    """Time and memory of the sweep at ImageNet's size, from a part of it that is solved from a file."""
    images, width, classes = IMAGENET
    array = SpilledArray(MemoryBudget(0))
    part = drawn(PART, width, classes)
    array.append(part.x.numpy())
    train = Features(torch.from_numpy(array.finish()), part.y)
    del part
    path = RegularizationPath(train, torch.arange(PART))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    path.solve(STRENGTHS[1], COMPARED)
    return {
        "imagenet_features_gb": images * width * 4 / 2**30,
        "imagenet_seconds_of_a_pass": (time.perf_counter() - began) / path.passes * images / PART,
        "imagenet_passes_of_a_strength": path.passes,
        "solver_memory_gb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20,
    }
