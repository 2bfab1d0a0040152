"""A backbone for use in other programs, with the preprocessing that its evaluation has."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from wildfern.launch.backbones import chosen_weights, named_backbone
from wildfern.launch.errors import RunError
from wildfern.launch.evaluated import named_preprocessing, of_recipe
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.evaluation.protocols.image_transform import ImageTransform
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.networks import unknown_network

# Of timm's config of a network, what is not about other weights or other images.
KEPT = ("architecture", "classifier", "first_conv", "fixed_input_size", "min_input_size")


def load_backbone(source: str | Path | tuple[str, str | Path | None], trained: bool = True) -> Backbone:
    """A backbone in eval mode: that of a run folder, pretrained or (`trained=False`) as before training, or (name, weights).

    A name is one of timm, `torchvision/NAME` or small_alexnet; weights are a file, a run folder, `timm`, `timm:TAG`, or None for
    random ones. `backbone.transform` gives images as the evaluation does (an `ImageTransform`), and `backbone.pretrained_cfg`,
    also of `backbone.network`, has size, mean, deviation and interpolation for `timm.data.resolve_model_data_config`.
    Raises RunError for a folder without a run or without weights, ValueError for what does not fit.
    """
    if isinstance(source, tuple | list):
        if len(source) != 2 or not isinstance(source[0], str):
            raise RunError("give a run folder, or a pair of name and weights such as ('resnet50', 'x.pth')")
        name, weights = source
        backbone = named_backbone(name, chosen_weights(weights))
        transform = ImageTransform(named_preprocessing(backbone, None, torch.device("cpu")))
        return _described(backbone, transform, backbone.in_chans)
    if isinstance(source, str) and not Path(source).exists() and unknown_network(source, nearest=False) is None:
        raise RunError(
            f"there is no run folder {source}; a network of this name is ({source!r}, None), with random weights"
        )
    folder = RunFolder.for_reading(source)
    return _described(folder.backbone(trained), *recipe_transform(folder.recipe()))


def recipe_transform(recipe: Recipe) -> tuple[ImageTransform, int]:
    """The preprocessing of a recipe's evaluation, and the number of channels that the network gets from it."""
    [model] = of_recipe(recipe, {"pretrained": nn.Identity()}, torch.device("cpu")).values()
    views = VIEWS[recipe.views.name](**recipe.views.arguments)
    then = None if views.intensity_order is None else model.backbone  # that transform alone
    return ImageTransform(model.preprocessing, model.channels, then), views.channels


def timm_images(transform: ImageTransform, channels: int) -> dict[str, Any]:
    """Size, mean, standard deviation and interpolation of the images in timm's words; `channels` are those of the network."""
    settings = transform.preprocessing
    mean, std = (tuple((*values, *[values[-1]] * channels)[:channels]) for values in (settings.mean, settings.std))
    return {
        "input_size": (channels, settings.size, settings.size),
        "mean": mean,
        "std": std,
        "interpolation": settings.interpolation,
        "crop_pct": 1.0,
    }


def _described(backbone: Backbone, transform: ImageTransform, channels: int) -> Backbone:
    former = getattr(backbone.network, "pretrained_cfg", None) or {}
    config = {key: former[key] for key in KEPT if key in former}
    config |= {**timm_images(transform, channels), "crop_mode": "center", "num_classes": 0}
    backbone.network.pretrained_cfg = backbone.network.default_cfg = config
    backbone.transform, backbone.pretrained_cfg = transform, config
    return backbone
