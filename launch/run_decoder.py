"""`decoder.safetensors` of a run folder: what completes the backbone to a segmenter, with its settings."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wildfern.bounded_json import parse_json
from wildfern.files import is_regular, replacing
from wildfern.launch.builders import build_method
from wildfern.launch.errors import RunError, cannot_write
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.methods import Method
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.checkpoint_file import read_tensors
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

FILE = "decoder.safetensors"
_THRESHOLD = "wildfern.threshold"  # in the metadata of the file


def recipe_settings(recipe: Recipe) -> SegmentationSettings:
    """Windows and scale as in the training of a recipe, without a threshold."""
    view = VIEWS[recipe.views.name](**recipe.views.arguments).groups[0][0]
    return SegmentationSettings(view.size, view.crop_pixels, view.crop_scale)


def attach_random_decoder(backbone: Backbone, recipe: Recipe) -> None:
    """Complete a backbone by the decoder of the recipe's method at initialization."""
    decoder = build_method(recipe, replaced=True).segmentation_decoder()
    if decoder is None:
        raise RunError(f"{recipe.method.name} has no decoder")
    backbone.attach_decoder(decoder.eval(), recipe_settings(recipe))


def checked_backbone(method: Method, recipe: Recipe) -> Backbone:
    """The method's backbone to evaluate, with its decoder if it has one: the same modules, which stay the method's."""
    backbone, decoder = method.eval_backbone(), method.segmentation_decoder()
    if decoder is None:
        return backbone
    whole = copy.copy(backbone)
    whole.__dict__["_modules"] = dict(backbone._modules)
    whole.attach_decoder(decoder, recipe_settings(recipe))
    return whole


def attach_decoder(
    backbone: Backbone, recipe: Recipe, state: Mapping[str, Tensor], threshold: Mapping[str, object] | None = None
) -> None:
    """Complete a backbone by the decoder with these weights. Raises RunError for those of another decoder."""
    attach_random_decoder(backbone, recipe)
    decoder = backbone.decoder
    assert decoder is not None
    try:
        decoder.load_state_dict(dict(state))
    except RuntimeError as error:  # of other names or shapes
        reason = " ".join(str(error).split())
        raise RunError(f"the weights are not those of this run's decoder: {reason[:300]}") from error
    found = asdict(recipe_settings(recipe)) | dict(threshold or {})
    backbone.attach_decoder(decoder, SegmentationSettings(**found))


def write_decoder(folder: Path, state: Mapping[str, Tensor], threshold: Mapping[str, object] | None = None) -> None:
    """Write `decoder.safetensors` of a run folder atomically. `threshold`: that of `SegmentationSettings`, and `chosen_on`."""
    file = folder / FILE
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    with replacing(file, sync=False) as beside:
        try:
            # One entry at most: safetensors writes several in random order.
            save_file(tensors, beside, {_THRESHOLD: json.dumps(threshold)} if threshold else None)
        except SafetensorError as error:  # a full disk too: safetensors raises no OSError
            raise RunError(cannot_write(file, error, folder)) from error
        beside.chmod(folder.stat().st_mode & 0o666)


def has_decoder(folder: Path) -> bool:
    """Whether the run folder has a decoder."""
    return is_regular(folder / FILE)


def attach_run_decoder(backbone: Backbone, folder: Path, recipe: Recipe) -> None:
    """Complete the backbone of a run by its decoder. Raises RunError for a missing or damaged file."""
    file = folder / FILE
    if not has_decoder(folder):
        raise RunError(
            f"{folder} has no {FILE}: {recipe.method.name} trains no segmenter, or the run has no checkpoint yet; freecos does"
        )
    try:
        state = read_tensors(file, only_safetensors=True)
        with safe_open(file, framework="pt") as opened:
            written = (opened.metadata() or {}).get(_THRESHOLD)
    except (ValueError, OSError, SafetensorError) as error:
        raise RunError(f"{error}; resuming the run writes {file} again") from error
    attach_decoder(backbone, recipe, state, _threshold(written, file))


def _threshold(written: str | None, file: Path) -> dict[str, object]:
    """What the metadata of a file says. Raises RunError for anything but a threshold in (0, 1) and a text."""
    if written is None:
        return {}
    try:
        found = parse_json(written)
        threshold, chosen_on = found["threshold"], found["chosen_on"]
        if not 0 < threshold < 1 or not isinstance(chosen_on, str):
            raise ValueError("a threshold is between 0 and 1")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{file}: its metadata are damaged ({error}); resuming the run writes it again") from error
    return {"threshold": float(threshold), "chosen_on": chosen_on}
