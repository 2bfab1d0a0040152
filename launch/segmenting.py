"""`wildfern segment RUN IMAGES`: masks, overlays, and tables of the segments of the masks' skeletons."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.bounded_json import read_json
from wildfern.files import replacing, write_text
from wildfern.launch.device import choose_device
from wildfern.launch.errors import RunError, disk_errors, user_errors
from wildfern.launch.evaluated import of_recipe
from wildfern.launch.output_paths import output_folder
from wildfern.launch.protocols import DatasetLike
from wildfern.launch.run_decoder import attach_run_decoder
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.segmentation_tables import SegmentationTables
from wildfern.launch.segmented_images import open_images
from wildfern.launch.threads import set_threads
from wildfern.ssl.data import UnreadableImage
from wildfern.ssl.evaluation.features import frozen
from wildfern.ssl.models.segmentation_settings import SegmentationSettings
from wildfern.ssl.segmentation.overlay import overlay
from wildfern.ssl.segmentation.small_objects import without_small_objects
from wildfern.ssl.segmentation.windows import probability_map
from wildfern.ssl.tracking import Progress, progress_of

RECORD = "segmentation.json"
FIXED = 0.5
OPACITY = 0.9  # of the outline of a mask in its overlay


@dataclass(frozen=True)
class SegmentationSummary:
    """What was written to the folder `out`: `images` masks and `segments` rows of segments.csv; `unreadable` by name."""

    out: Path
    images: int
    segments: int
    threshold: float
    threshold_words: str
    unreadable: dict[str, str]


def segment(
    run: str | Path,
    images: str | Path | DatasetLike,
    out: str | Path,
    *,
    threshold: float | None = None,
    scale: float | None = None,
    overlap: float = 0.25,
    pixel_size: float = 1.0,
    smallest: float = 0.0,
    shortest: float = 0.0,
    overlays: bool = True,
    probabilities: bool = False,
    batch_size: int = 8,
    threads: int | None = None,
    announce: Callable[[str], None] | Progress = lambda text: None,
    say: Callable[[str], None] = lambda text: None,
) -> SegmentationSummary:
    """Segment images with the network of a run, and write masks, overlays and tables to the folder `out`.

    images: a folder, an image file, or a source such as "masks:PATH" or {"source": "folder:PATH", "bands": [1]}.
    threshold: of the probabilities, in (0, 1); None: the one that the run chose on rendered images, else 0.5.
    scale: by which images are resized before they are segmented; None: so that objects are as wide as in training.
    overlap: of neighboring windows, a share of their side in [0, 0.95].
    pixel_size: side of a pixel of the images, in any unit; lengths and widths in the tables are in it.
    smallest: objects of a smaller area, in the square of that unit, are removed from the masks. shortest: segments with a free
        end that are shorter, in that unit, are left out of the tables.

    `out` gets NAME.png (0 and 255), overlays/NAME.jpg, probabilities/NAME.png (0 to 255) if wanted, images.csv with a row for
    each image, segments.csv with a row for each segment of the skeletons, and segmentation.json. An image in a sub-folder,
    more/b.png, becomes more__b.png. Images that cannot be read are passed over; what an earlier segmentation wrote for images
    that are gone is removed.

    Raises RunError for a run without a decoder, for numbers out of range, for folders that cannot be used, and if no image can
    be read; DataError for a source that cannot be opened.
    """
    _check(threshold, scale, overlap, pixel_size, smallest, shortest, batch_size)
    folder, progress = RunFolder.for_reading(run), progress_of(announce)
    recipe = folder.recipe()
    device = choose_device(recipe.training.device)
    for message in set_threads(threads):
        say(message.replace("training.threads=1", "--threads 1"))
    with user_errors():
        progress.part(f"opening {images}")
        found = open_images(images, recipe, out)
        progress.part("building the network")
        backbone = folder.backbone()
        attach_run_decoder(backbone, folder, recipe)
        model = of_recipe(recipe, {"pretrained": backbone}, device)["pretrained"]
        settings = backbone.segmentation
        assert settings is not None  # attached above
        chosen, words = _threshold(threshold, settings)
        found.check(model.channels, out)
        place = output_folder(out, RECORD)
        earlier = _earlier(place)
        record = {
            "run": str(folder.path.resolve().name),
            "run_id": folder.run_id(),
            "wildfern": version("wildfern"),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "threshold": chosen,
            "threshold_words": words,
            "scale": scale,
            "window": settings.size,
            "overlap": overlap,
            "pixel_size": pixel_size,
            "smallest": smallest,
            "shortest": shortest,
        }
        all_names = sorted({*earlier, *found.written})
        _write_record(place, {**record, "complete": False, "written": all_names})
        progress.part("segmenting")
        tables = SegmentationTables()
        unreadable, written = dict(found.unreadable), []
        for number, (name, own) in enumerate(zip(found.names, found.written, strict=True)):
            progress.count(number, len(found.names), "images", name)
            try:
                pixels = found.read(number)
            except UnreadableImage as error:
                unreadable[name] = error.reason
                continue
            with frozen(model.backbone):
                probability = probability_map(
                    model.backbone.segment,
                    pixels,
                    size=settings.size,
                    mean=model.preprocessing.mean,
                    std=model.preprocessing.std,
                    overlap=overlap,
                    scale=settings.scale(*pixels.shape[:2]) if scale is None else scale,
                    batch_size=batch_size,
                    device=device,
                )
            if not np.isfinite(probability).all():
                raise RunError(f"{folder.path}: the network gives NaN or infinity: its training has diverged")
            mask = without_small_objects(probability >= chosen, smallest / pixel_size**2)
            with disk_errors(place):
                _write_image(place / f"{own}.png", mask.astype(np.uint8) * 255)
                if overlays:
                    _write_image(place / "overlays" / f"{own}.jpg", overlay(pixels, mask, opacity=OPACITY))
                if probabilities:
                    _write_image(place / "probabilities" / f"{own}.png", np.rint(probability * 255).astype(np.uint8))
            written.append(own)
            tables.add(name, f"{own}.png", mask, pixel_size, shortest)
        progress.count(len(found.names), len(found.names), "images")
        if not tables.images:
            name, reason = next(iter(unreadable.items()))
            raise RunError(f"no image could be read; for example {name}: {reason}")
        with disk_errors(place):
            tables.write(place)
            for own in set(earlier) - set(written):  # of images that are there no more
                for file in (f"{own}.png", f"overlays/{own}.jpg", f"probabilities/{own}.png"):
                    (place / file).unlink(missing_ok=True)
            counts = {"images": len(tables.images), "unreadable": unreadable, "written": written}
            _write_record(place, {**record, "complete": True, **counts})
    return SegmentationSummary(place, len(tables.images), len(tables.segments), chosen, words, unreadable)


def _write_record(place: Path, record: dict[str, Any]) -> None:
    with disk_errors(place):
        write_text(place / RECORD, json.dumps(record, indent=2) + "\n")


def _earlier(place: Path) -> list[str]:
    """The names of the files that an earlier segmentation wrote to the folder; none that are not names alone."""
    try:
        found = read_json(place / RECORD).get("written", [])
    except (OSError, ValueError, AttributeError):
        return []
    names = found if isinstance(found, list) else []
    return [
        name
        for name in names
        if isinstance(name, str) and os.path.basename(name) == name and name not in ("", ".", "..")
    ]


def _threshold(given: float | None, settings: SegmentationSettings) -> tuple[float, str]:
    if given is not None:
        return given, "given"
    if settings.threshold is not None:
        return settings.threshold, f"chosen on {settings.chosen_on}"
    return FIXED, "fixed: the run has chosen none"


def _check(
    threshold: float | None,
    scale: float | None,
    overlap: float,
    pixel_size: float,
    smallest: float,
    shortest: float,
    batch_size: int,
) -> None:
    if threshold is not None and not 0 < threshold < 1:
        raise RunError(f"--threshold is a probability between 0 and 1, got {threshold:g}")
    if scale is not None and not 0 < scale <= 100:
        raise RunError(f"--scale is a factor above 0 and at most 100, got {scale:g}")
    if not 0 <= overlap <= 0.95:
        raise RunError(f"--overlap is a share of a window's side, 0 to 0.95, got {overlap:g}")
    if not 0 < pixel_size < float("inf"):
        raise RunError(f"--pixel-size is the side of a pixel, above 0, got {pixel_size:g}")
    if not 0 <= smallest < float("inf"):
        raise RunError(f"--smallest is an area, 0 or more, got {smallest:g}")
    if not 0 <= shortest < float("inf"):
        raise RunError(f"--shortest is a length, 0 or more, got {shortest:g}")
    if batch_size < 1:
        raise RunError(f"--batch-size must be at least 1, got {batch_size}")


def _write_image(file: Path, pixels: NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, sync=False) as beside:
        if file.suffix == ".jpg":
            Image.fromarray(pixels).save(beside, "JPEG", quality=92, subsampling=0)
        else:
            Image.fromarray(pixels).save(beside, "PNG")
