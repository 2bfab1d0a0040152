"""The threshold of a trained segmenter, chosen on rendered images with masks that training did not see."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from wildfern.launch.builders import build_views, seeded_arguments
from wildfern.launch.run_decoder import attach_decoder
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.registry import GENERATORS
from wildfern.ssl.data import Source, open_source
from wildfern.ssl.evaluation.features import frozen
from wildfern.ssl.evaluation.metrics.pixel_ranking import SegmentedImage
from wildfern.ssl.evaluation.metrics.segmentation_thresholds import best_threshold
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import Tracker

IMAGES = 64
AT_ONCE = 8


def chosen_threshold(
    folder: RunFolder, recipe: Recipe, decoder: Mapping[str, Tensor], tracker: Tracker
) -> dict[str, object] | None:
    """The threshold with the best mean Dice on 64 rendered images, and in words on which; None if the data has no generator.

    The images are of the test parts of the generators with masks in `data`, through the views of the training. Reads the weights
    of the backbone in the folder.
    """
    sources = _rendered(recipe)
    if not sources:
        tracker.message("the threshold stays .5: no source of data renders images with masks to choose it on")
        return None
    try:
        backbone = folder.backbone()
        attach_decoder(backbone, recipe, decoder)
    except (ValueError, OSError) as error:  # weights that are not finite, for example
        tracker.message(f"the threshold stays .5, as none can be chosen: {error}")
        return None
    with tracker.progress("choosing the threshold on rendered images"):
        threshold, dice = best_threshold(_probabilities(recipe, [source for _, source in sources], backbone))
    names = " and ".join(dict.fromkeys(name for name, _ in sources))
    tracker.message(
        f"threshold {threshold:.2f}: mean Dice {dice:.3f} on {IMAGES} images of {names} not used in training"
    )
    return {"threshold": float(threshold), "chosen_on": f"{IMAGES} images of {names} not used in training"}


def _rendered(recipe: Recipe) -> list[tuple[str, Source]]:
    """The test parts of the generators with masks, with their names."""
    found = []
    for entry in recipe.data:
        if entry.scheme in GENERATORS:
            source = open_source(entry.source, "test", **seeded_arguments(entry, recipe.seed))
            if source.read(np.zeros(1, np.int64)).masks is not None:
                found.append((entry.source, source))
    return found


@torch.no_grad()
def _probabilities(recipe: Recipe, sources: list[Source], backbone: Backbone) -> Iterator[SegmentedImage]:
    """Probabilities and masks of the views of `IMAGES` images, which the sources give in turn."""
    views, seed, step = build_views(recipe), recipe.seed, recipe.training.steps  # a step that training did not do
    size = views.shape[0][1]
    with frozen(backbone):
        for start in range(0, IMAGES, AT_ONCE):
            items = np.arange(start, start + AT_ONCE, dtype=np.int64)
            images = sources[start // AT_ONCE % len(sources)].read(items)
            masked = np.ones(AT_ONCE, np.bool_)
            prepared = views.prepare(images.pixels, seed, step, items, None, IMAGES, images.masks, masked=masked)
            masks = views.masks(prepared)
            assert masks is not None  # of a source with masks
            shown = views(prepared)[0][0]
            probabilities = backbone.segment(shown).float().sigmoid().view(-1, size, size)
            for probability, mask in zip(probabilities.numpy(), masks[0][0].numpy(), strict=True):
                yield probability, mask > 0, None
