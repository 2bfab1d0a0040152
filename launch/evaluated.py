"""The backbones of one evaluation: those of runs, and any networks by name, each with its preprocessing and baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wildfern.launch.backbone_arguments import size_argument
from wildfern.launch.backbones import chosen_weights, named_backbone, recipe_backbone
from wildfern.launch.errors import RunError
from wildfern.launch.run_decoder import attach_random_decoder, attach_run_decoder, has_decoder
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.evaluation import Preprocessing, TransformedBackbone
from wildfern.ssl.evaluation.preprocessing import Interpolation
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.image_features import IMAGE_FEATURES, ImageFeatures
from wildfern.ssl.models.networks import unknown_network
from wildfern.ssl.models.width import measure_width

BackboneLike = str | tuple[str, str | Path | None]  # a name (random weights), or name and weights


@dataclass(frozen=True)
class Evaluated:
    """A backbone with the preprocessing of its images.

    `network` says which backbones are of one network: those are compared with the first of them that is `random`.
    """

    backbone: nn.Module
    preprocessing: Preprocessing
    network: tuple = ()
    random: bool = False
    channels: int = 3  # of the images


def of_recipe(recipe: Recipe, backbones: Mapping[str, nn.Module], device: torch.device) -> dict[str, Evaluated]:
    """Backbones of a recipe's network, with images at the size of the largest views and preprocessed like these."""
    views = VIEWS[recipe.views.name](**recipe.views.arguments)
    mean, std = views.normalization
    if views.intensity_order is not None:
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
        backbones = {name: TransformedBackbone(views.intensity_order, backbone) for name, backbone in backbones.items()}
    preprocessing = Preprocessing(max(size for _, size in views.shape), device, mean, std)
    model = recipe.model
    network = (model.backbone, model.stem, repr(sorted(model.arguments.items())), repr(preprocessing))
    return {
        name: Evaluated(backbone.to(device), preprocessing, network, name == "random", views.input_channels)
        for name, backbone in backbones.items()
    }


def of_run(folder: RunFolder, recipe: Recipe, start: Backbone | None, device: torch.device) -> dict[str, Evaluated]:
    """A run's backbone as `pretrained`, the same network as `random`, and with the weights it started from as `start`.

    If the run trained a segmenter, all have a decoder: the last two at random weights.
    """
    backbones = run_backbones(recipe, start, folder.backbone())
    if has_decoder(folder.path):
        for backbone in backbones.values():
            attach_random_decoder(backbone, recipe)
        attach_run_decoder(backbones["pretrained"], folder, recipe)
    return of_recipe(recipe, backbones, device)


def run_backbones(recipe: Recipe, start: Backbone | None, pretrained: Backbone) -> dict[str, Backbone]:
    """The backbones of a run by the names of their rows."""
    started = {} if start is None else {"start": start}
    return {"random": recipe_backbone(recipe), **started, "pretrained": pretrained}


def check_networks(wanted: Sequence[BackboneLike], size: int | None) -> None:
    """Raise RunError unless each network is a name or a pair (name, weights), and the size a positive whole number."""
    if size is not None and (type(size) is not int or size < 1):
        raise RunError(f"size must be a whole number of pixels, at least 1, got {size!r}")
    for number, entry in enumerate(wanted):
        name, weights = entry if isinstance(entry, tuple | list) and len(entry) == 2 else (entry, None)
        if not isinstance(name, str) or not isinstance(weights, str | Path | None):
            raise RunError(
                f"backbones.{number} must be the name of a network, or a pair of name and weights such as ('resnet50', 'x.pth'), "
                f"got {type(entry).__name__}"
            )
        if name not in IMAGE_FEATURES and Path(name).exists() and unknown_network(name, nearest=False):
            raise RunError(f"{name} is a file or folder, not the name of a network: --backbone NAME --weights {name}")


def of_name(wanted: BackboneLike, size: int | None, device: torch.device) -> tuple[str, Evaluated, str | None]:
    """Label, backbone and message of a network by its name, at the network's own image size unless `size` is given.

    A name of `IMAGE_FEATURES` is its own label, has a size of its own, and is compared with no random network.
    Raises ValueError for unknown names, weights that do not fit, and sizes that the network does not take.
    """
    name, weights = (wanted, None) if isinstance(wanted, str) else wanted
    weights = chosen_weights(weights)
    if name in IMAGE_FEATURES:
        if weights is not None:
            raise ValueError(
                f"{name} is computed from the image and has no weights, got {weights}; give --weights none"
            )
        features = IMAGE_FEATURES[name]()
        return name, Evaluated(features, named_preprocessing(features, None, device), (name,)), None
    key = size_argument(name) if size is not None else None
    arguments = {} if key is None else {key: size}
    backbone = named_backbone(name, weights, **arguments)
    if size is not None and size != backbone.size:
        measure_width(backbone.network, (3, size, size), name)
    preprocessing = named_preprocessing(backbone, size, device)
    what = "random" if weights is None else str(weights) if not Path(weights).exists() else Path(weights).resolve().name
    network = (name, "standard", repr([]), repr(preprocessing.size))
    message = None if backbone.weights is None else backbone.weights.message
    return f"{name} {what}", Evaluated(backbone.to(device), preprocessing, network, weights is None), message


def named_preprocessing(backbone: Backbone | ImageFeatures, size: int | None, device: torch.device) -> Preprocessing:
    """That of a network by its name: with its own mean, deviation and interpolation, and its own size unless one is given."""
    interpolation: Interpolation = "bicubic" if backbone.interpolation == "bicubic" else "bilinear"
    return Preprocessing(size or backbone.size, device, backbone.mean, backbone.std, interpolation=interpolation)


def baselines(models: Mapping[str, Evaluated]) -> dict[str, str]:
    """For each backbone the first random one of the same network, if there is one."""
    first: dict[tuple, str] = {}
    for label, model in models.items():
        if model.random:
            first.setdefault(model.network, label)
    return {
        label: first[model.network]
        for label, model in models.items()
        if model.network in first and first[model.network] != label
    }


def run_names(folders: Sequence[RunFolder]) -> list[str]:
    """Folder names, with the parent's name if two are equal. Raises RunError for a folder that is named twice."""
    paths = [folder.path.resolve() for folder in folders]
    if again := [path for path in paths if paths.count(path) > 1]:
        raise RunError(f"{again[0]} is named twice")
    names = [path.name for path in paths]
    return [f"{p.parent.name}/{p.name}" if names.count(p.name) > 1 else p.name for p in paths]
