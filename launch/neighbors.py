"""`wildfern neighbors RUN`: a page with images and their nearest neighbors, for the pretrained and for the random network."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.launch.components import missing_place
from wildfern.launch.device import choose_device
from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.evaluated import of_run
from wildfern.launch.evaluation_data import check_channels_of
from wildfern.launch.output_paths import output_file, writing
from wildfern.launch.protocols import Dataset, DatasetLike, check_dataset
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.stats import open_with_classes
from wildfern.launch.threads import set_threads
from wildfern.recipes import Recipe
from wildfern.registry import GENERATORS
from wildfern.ssl.data import Source
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.data.paths import expanded
from wildfern.ssl.evaluation.report.image_bank import AT_ONCE, read_bank
from wildfern.ssl.evaluation.report.neighbors import Neighbors, draw_queries, find_neighbors, spread_evenly
from wildfern.ssl.evaluation.report.neighbors_page import About, neighbors_page
from wildfern.ssl.evaluation.report.thumbnails import Thumbnail, thumbnail
from wildfern.ssl.tracking import Progress, progress_of

PAGE = "neighbors.html"


def write_neighbors(
    run: str | Path,
    on: DatasetLike | None = None,
    *,
    out: str | Path | None = None,
    split: str = "train",
    queries: int = 16,
    k: int = 8,
    images: int = 3000,
    seed: int = 0,
    batch_size: int = 64,
    threads: int | None = None,
    announce: Callable[[str], None] | Progress = lambda text: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the page of a run (default: neighbors.html in its folder) and return its path.

    `queries` images are drawn by `seed` from `images` ones that are spread evenly over the source `on`, each with its `k`
    nearest among the others. Default of `on`: the first source of the recipe's data that is no generator, else its first data
    set to evaluate on. `announce` and `say` are those of `evaluate`. Raises RunError for a run without weights, and for images
    that the backbone does not take; DataError for images that cannot be read.
    """
    for name, number in {"queries": queries, "k": k, "images": images - 1, "batch_size": batch_size}.items():
        if number < 1:
            raise RunError(f"{name} must be at least {2 if name == 'images' else 1}")
    folder, progress = RunFolder.for_reading(run), progress_of(announce)
    file = output_file(folder.path / PAGE if out is None else out)
    recipe = folder.recipe()
    dataset = _of_recipe(recipe) if on is None else check_dataset(on, "neighbors", "on")
    device = choose_device(recipe.training.device)
    for message in set_threads(threads):
        say(message.replace("training.threads=1", "--threads 1"))
    with user_errors():
        progress.part("building the networks")
        start, reason = folder.start_backbone(recipe)
        if reason is not None:
            say(reason.replace("the row `start` is", "the neighbors of the start are"))
        models = of_run(folder, recipe, start, device)
        models = {name: models[name] for name in reversed(models)}  # the pretrained one first
        progress.part(f"opening {dataset.label}")
        source = _opened(dataset, split, explicit=on is not None)
        if source.num_items is None:
            raise RunError(f"{dataset.label} is endless: name a set of images with --on, such as digits or folder:PATH")
        check_channels_of({dataset.label: (source, source)}, models["pretrained"].channels)
        progress.part(f"{dataset.label}: features")
        items, features = read_bank(
            source,
            spread_evenly(source.num_items, images),
            {name: model.backbone for name, model in models.items()},
            {name: model.preprocessing for name, model in models.items()},
            batch_size,
            progress,
        )
        progress.part("searching neighbors")
        found = find_neighbors(features, draw_queries(len(items), queries, seed), k, progress)
        progress.part("drawing the page")
        shown = _thumbnails(source, dataset, items, found, progress)
    size = models["pretrained"].preprocessing.size
    width = features["pretrained"].x.shape[1]
    about = About(
        title=" · ".join(
            (recipe.method.name, recipe.model.backbone, " + ".join(entry.source for entry in recipe.data))
        ),
        run=folder.path.resolve().name,
        source=", ".join(part for part in (dataset.label, split, source.split_words) if part),
        network=f"{recipe.model.backbone} at {size} px (width {width:,})",
        of=source.num_items if source.num_items > images else len(items),
        unreadable=source.skipped,
        notes=source.notes,
    )
    page = neighbors_page(found, len(items), shown, about)
    with writing(file) as path:
        path.write_bytes(page.encode("utf-8", "backslashreplace"))
    return file


def _of_recipe(recipe: Recipe) -> Dataset:
    """The images that the recipe trains on, else those that it evaluates on. Raises RunError if there are none."""
    rendered = all(entry.source.partition(":")[0] in GENERATORS for entry in recipe.data)
    entries = recipe.evaluation.on if rendered else recipe.data
    for entry in entries:
        if entry.source.partition(":")[0] in GENERATORS:
            continue
        if problem := missing_place(entry.source):
            raise RunError(f"the images of this run are gone: {problem}; name others with --on SOURCE")
        return Dataset(entry.source, dict(entry.arguments), entry.source)
    trained = " and ".join(entry.source for entry in recipe.data)
    raise RunError(
        f"this run trained on rendered images ({trained}) and has no data set to evaluate on: name images with --on, for example "
        "--on digits or --on folder:PATH"
    )


def _opened(dataset: Dataset, split: str, explicit: bool) -> Source:
    """The source, with the class folders of a folder if it has any; its headers are not checked, since few files are read."""
    arguments = dict(dataset.arguments)
    if not explicit and arguments.get("labels") == "none":
        del arguments["labels"]
    if dataset.source.startswith("folder:"):
        arguments.setdefault("check_headers", False)
        if not explicit:
            arguments["check_headers"] = False
    return open_with_classes(dataset.source, split, arguments, explicit="labels" in arguments)


def _thumbnails(
    source: Source, dataset: Dataset, items: NDArray[np.int64], found: Neighbors, progress: Progress
) -> dict[int, Thumbnail]:
    """The images that the page shows, read again, by their places among `items`."""
    places = np.unique(np.concatenate([found.queries, *(one.places.ravel() for one in found.found.values())]))
    shown: dict[int, Thumbnail] = {}
    for start in range(0, len(places), AT_ONCE):
        progress.count(start, len(places), "images")
        some = places[start : start + AT_ONCE]
        pixels = source.read(items[some]).as_lists().pixels
        for place, image in zip(some.tolist(), pixels, strict=True):
            shown[place] = thumbnail(np.asarray(image), _name(source, dataset, int(items[place])))
    return shown


def _name(source: Source, dataset: Dataset, item: int) -> str:
    """Where an image is stored; below the folder, for a folder of images."""
    if not isinstance(source, ImageSource):
        return f"image {item}"
    name, scheme, place = source.item_name(item), *dataset.source.partition(":")[::2]
    return os.path.relpath(name, expanded(place)) if scheme == "folder" else name
