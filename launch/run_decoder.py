"""`decoder.safetensors` of a run folder: what completes the backbone to a segmenter, with its settings."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wildfern.bounded_json import parse_json
from wildfern.files import is_regular, replacing
from wildfern.launch.builders import build_method
from wildfern.launch.errors import RunError, cannot_write, place_in_plugin
from wildfern.launch.run_weights import RunWeights
from wildfern.printable import printable
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.evaluation.features import frozen
from wildfern.ssl.methods import Method
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.checkpoint_file import read_tensors
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

FILE = "decoder.safetensors"
_ABOUT = "wildfern.decoder"  # in the metadata of the file: SHA-256 of its backbone, threshold, chosen_on
_MOST_WORDS = 200


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


def check_decoder(method: Method, recipe: Recipe, size: int) -> None:
    """Raise RunError for a decoder that does not give a logit for each pixel of views of `size` px."""
    if method.segmentation_decoder() is None:
        return
    backbone = checked_backbone(method, recipe)
    device = next(backbone.parameters()).device
    try:
        with frozen(backbone):
            found = backbone.segment(torch.zeros(1, backbone.in_chans, size, size, device=device))
    except Exception as error:  # of networks and decoders that do not take this size
        if place_in_plugin(error):
            raise
        raise RunError(
            f"{recipe.model.backbone} with the decoder of {recipe.method.name} does not take views of {size} px: {error}"
        ) from error
    if not isinstance(found, Tensor) or found.shape != (1, size, size):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise RunError(f"the decoder of {recipe.method.name} must give logits [N, {size}, {size}], got {shape}")


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


def write_decoder(
    folder: Path, state: Mapping[str, Tensor], backbone_sha256: str, threshold: Mapping[str, object] | None = None
) -> None:
    """Write `decoder.safetensors` of a run folder atomically, for the backbone with this hash.

    `threshold`: that of `SegmentationSettings`, and `chosen_on`.
    """
    file = folder / FILE
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    about = json.dumps({"backbone_sha256": backbone_sha256, **(threshold or {})})
    with replacing(file, sync=False) as beside:
        try:
            save_file(tensors, beside, {_ABOUT: about})  # one entry: safetensors writes several in random order
        except SafetensorError as error:  # a full disk too: safetensors raises no OSError
            raise RunError(cannot_write(file, error, folder)) from error
        beside.chmod(folder.stat().st_mode & 0o666)


def has_decoder(folder: Path) -> bool:
    """Whether the run folder has a decoder."""
    return is_regular(folder / FILE)


def attach_run_decoder(backbone: Backbone, folder: RunWeights, recipe: Recipe) -> None:
    """Complete the backbone of a run by its decoder.

    Raises RunError for a missing or damaged file, and for one of another backbone, as of a run that was killed between the two.
    """
    file = folder.path / FILE
    if not has_decoder(folder.path):
        raise RunError(
            f"{folder.path} has no {FILE}: its method ({recipe.method.name}) trains no segmenter, or there is no checkpoint yet"
        )
    try:
        state = read_tensors(file, only_safetensors=True)
        with safe_open(file, framework="pt") as opened:
            written = (opened.metadata() or {}).get(_ABOUT)
    except (ValueError, OSError, SafetensorError) as error:
        raise RunError(f"{error}; resuming the run writes {file} again") from error
    about = _about(written, file)
    sha256 = about.pop("backbone_sha256", None)
    if sha256 is not None and sha256 != folder.backbone_sha256():
        raise RunError(
            f"{file} is not of the backbone.safetensors beside it: one of them was replaced, or the run was killed between the "
            "two; resuming the run writes both again"
        )
    attach_decoder(backbone, recipe, state, about)


def _about(written: str | None, file: Path) -> dict[str, object]:
    """What the metadata of a file says. Raises RunError for anything but a hash, a threshold in (0, 1) and a text."""
    if written is None:
        return {}
    try:
        found = parse_json(written)
        sha256, threshold, chosen_on = (found.get(name) for name in ("backbone_sha256", "threshold", "chosen_on"))
        if sha256 is not None and not isinstance(sha256, str):
            raise ValueError("backbone_sha256 is a text")
        if threshold is None:
            return {"backbone_sha256": sha256}
        if not 0 < threshold < 1 or not isinstance(chosen_on, str):
            raise ValueError("a threshold is between 0 and 1, with what it was chosen on")
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{file}: its metadata are damaged ({error}); resuming the run writes it again") from error
    return {"backbone_sha256": sha256, "threshold": float(threshold), "chosen_on": printable(chosen_on)[:_MOST_WORDS]}
