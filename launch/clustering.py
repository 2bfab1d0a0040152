"""`wildfern cluster`: k-means clusters of a source's images by the features of a network, for guided batches."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wildfern.launch.builders import seeded_arguments
from wildfern.launch.device import choose_device
from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.evaluated import BackboneLike, Evaluated, check_networks, of_name, of_recipe
from wildfern.launch.evaluation_data import check_channels_of
from wildfern.launch.output_paths import output_file, writing
from wildfern.launch.protocols import Dataset, DatasetLike, check_dataset
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.threads import set_threads
from wildfern.recipes import Recipe
from wildfern.registry import GENERATORS
from wildfern.ssl.data import open_source
from wildfern.ssl.data.clusters import clusters_as_bytes, is_clusters
from wildfern.ssl.evaluation.protocols.k_means import k_means
from wildfern.ssl.evaluation.report.image_bank import read_bank
from wildfern.ssl.tracking import Progress, progress_of


@dataclass(frozen=True)
class Clustered:
    """A written file of clusters: numbers of images, of clusters with images, and of images in none (unreadable)."""

    file: Path
    images: int
    clusters: int
    unreadable: int
    smallest: int
    largest: int


def write_clusters(
    run: str | Path | None = None,
    on: DatasetLike | None = None,
    *,
    out: str | Path,
    k: int,
    backbone: BackboneLike | None = None,
    size: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    threads: int | None = None,
    announce: Callable[[str], None] | Progress = lambda text: None,
    say: Callable[[str], None] = lambda text: None,
) -> Clustered:
    """Cluster all training images of the source `on` into `k` clusters and write the file `out`.

    Features are those that evaluations extract, of the pretrained backbone of `run` or of the network `backbone`, a name or a
    pair of name and weights, at `size` pixels (default: its own). Default of `on`: the first source of the run's data that is no
    generator. All features are held in memory: 4 bytes × images × width. Raises RunError for an invalid request, DataError for
    images that cannot be read.
    """
    if k < 1 or batch_size < 1:
        raise RunError(f"{'k' if k < 1 else 'batch_size'} must be at least 1")
    if (run is None) == (backbone is None):
        raise RunError("name a run folder, or a network with --backbone (one of the two)")
    if run is None and on is None:
        raise RunError("name the images with --on, for example --on folder:PATH")
    file, progress, recipe = output_file(out), progress_of(announce), None
    if backbone is not None:
        check_networks([backbone], size)
    else:
        assert run is not None
        folder = RunFolder.for_reading(run)
        recipe = folder.recipe()
    if file.is_file() and not is_clusters(file):
        raise RunError(f"{file} exists and is no file of clusters: name another one with --out")
    dataset = _trained_on(recipe) if on is None and recipe is not None else check_dataset(on or "", "cluster", "on")
    device = choose_device("auto" if recipe is None else recipe.training.device)
    for message in set_threads(threads):
        say(message.replace("training.threads=1", "--threads 1"))
    with user_errors():
        progress.part("building the network")
        if recipe is not None:
            model = of_recipe(recipe, {"pretrained": folder.backbone()}, device)["pretrained"]
        else:
            assert backbone is not None
            model = _named(backbone, size, device, say)
        progress.part(f"opening {dataset.label}")
        source = open_source(dataset.source, "train", **dataset.arguments)
        if source.num_items is None:
            raise RunError(f"{dataset.label} is endless: name a set of images with --on, such as digits or folder:PATH")
        if source.num_items < k:
            raise RunError(f"{dataset.label} has {source.num_items:,} images, too few for {k:,} clusters")
        check_channels_of({dataset.label: (source, source)}, model.channels)
        progress.part(f"{dataset.label}: features")
        items, features = read_bank(
            source,
            np.arange(source.num_items),
            {"x": model.backbone},
            {"x": model.preprocessing},
            batch_size,
            progress,
        )
        progress.part(f"searching {k:,} clusters")
        found = k_means(features["x"].x, k, seed)
        clusters = np.full(source.num_items, -1, np.int32)
        clusters[items] = found
        content = clusters_as_bytes(clusters, source)
    with writing(file) as path:
        path.write_bytes(content)
    sizes = np.bincount(found)
    sizes = sizes[sizes > 0]
    return Clustered(file, len(items), len(sizes), source.num_items - len(items), int(sizes.min()), int(sizes.max()))


def _named(backbone: BackboneLike, size: int | None, device: torch.device, say: Callable[[str], None]) -> Evaluated:
    _, model, message = of_name(backbone, size, device)
    if message is not None:
        say(message)
    return model


def _trained_on(recipe: Recipe) -> Dataset:
    """The first source of the recipe's data that is finite, as training opens it."""
    for entry in recipe.data:
        if entry.source.partition(":")[0] not in GENERATORS:
            return Dataset(entry.source, seeded_arguments(entry, recipe.seed), entry.source)
    trained = " and ".join(entry.source for entry in recipe.data)
    raise RunError(
        f"this run trained on rendered images ({trained}): name a set of images with --on, such as digits or folder:PATH"
    )
