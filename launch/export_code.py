"""Python code that builds the exported network without wildfern and loads its weights."""

from typing import Any

from torch import nn

from wildfern.launch.loaded_backbone import recipe_transform, timm_images
from wildfern.recipes import Recipe
from wildfern.ssl.models.networks import OWN, TORCHVISION, deep_stem, replaces_stem, torchvision_recipe


def loading_code(recipe: Recipe, network: nn.Module, read: str) -> str:
    """Code that builds the network, loads all weights by the expression `read`, and has the preprocessing of its images.

    Each line begins with four spaces.
    """
    transform, channels = recipe_transform(recipe)
    images = timm_images(transform, channels)
    make = network_code(recipe, network, images)
    if read.startswith("safetensors"):
        make.insert(0, "import safetensors.torch")
    make.append(f"model.load_state_dict({read})")
    make.append("model.eval()")
    if not _is_timm(recipe):
        make.append(f"preprocessing = {images}")
    elif transform.then is not None:
        make.append(
            "# images: resize, scale to [0, 1], then wildfern's local intensity order; wildfern.load_backbone does it"
        )
    elif images["input_size"][0] == 3:
        make.append("transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))")
    else:
        make.append("# images of other than three channels: resize, scale to [0, 1], less mean, divided by std")
    for entry in recipe.data:
        given = {key: entry.arguments.get(key) for key in ("bands", "value_range")}
        if said := [f"{key}={list(value)}" for key, value in given.items() if isinstance(value, tuple | list)]:
            make.append(f"# {entry.source} was read with {', '.join(said)}: scale the values of files in the same way")
    return indented(make)


def network_code(recipe: Recipe, network: nn.Module, images: dict[str, Any]) -> list[str]:
    """Lines that build the network as `model`, with random weights; `images` is what timm is told of its images."""
    model = recipe.model
    if model.backbone in OWN:
        name = OWN[model.backbone].__name__
        make = [
            "import torch",
            f"from wildfern.ssl.models import {name}",
            f"model = {name}(**{model.arguments!r})",
        ]
    elif model.backbone.startswith(TORCHVISION):
        name = model.backbone.removeprefix(TORCHVISION)
        arguments, classifier = torchvision_recipe(name, model.arguments)
        make = [
            "import torch, torchvision",
            f'model = torchvision.models.get_model("{name}"{_written(arguments)})',
            f'model.set_submodule("{classifier}", torch.nn.Identity())',
        ]
    else:
        arguments, stem = dict(model.arguments), []
        if replaces_stem(network, arguments):
            arguments |= deep_stem(model.backbone, arguments["stem_width"])
            first = network.conv1
            stem = [
                f"model.conv1 = torch.nn.Conv2d({first.in_channels}, {first.out_channels}, 7, stride=2, padding=3, bias=False)"
                "  # one convolution, of the recipe's stem_width"
            ]
        make = [
            "import timm, torch",
            f"images = {images}",
            f'model = timm.create_model("{model.backbone}", num_classes=0{_written(arguments)}, pretrained_cfg_overlay=images)',
            *stem,
        ]
    if model.stem == "cifar":
        make += [
            "first = model.conv1  # the recipe's stem is cifar: 3×3, stride 1, no pooling",
            "model.conv1 = torch.nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)",
            "model.maxpool = torch.nn.Identity()",
        ]
    return make


def made_by_timm(recipe: Recipe, network: nn.Module) -> bool:
    """Whether `timm.create_model` makes the network from its name and arguments, without a line of code after it."""
    model = recipe.model
    return _is_timm(recipe) and model.stem == "standard" and not replaces_stem(network, model.arguments)


def indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _is_timm(recipe: Recipe) -> bool:
    name = recipe.model.backbone
    return name not in OWN and not name.startswith(TORCHVISION)


def _written(arguments: dict[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in arguments.items())
