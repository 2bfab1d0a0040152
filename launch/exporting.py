"""Export the pretrained backbone."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import MEAN, STD, VIEWS
from wildfern.ssl.models.networks import TORCHVISION, torchvision_recipe

FORMATS = ("timm", "safetensors", "onnx")


def export_backbone(run: Path, format: str = "timm", out: Path | None = None) -> str:
    """Write the backbone in one of `FORMATS` and return how to load it.

    timm: a PyTorch state dict with timm's names, for `timm.create_model(…).load_state_dict(…)`. safetensors: the same
    tensors as safetensors. onnx: the network with a dynamic batch size. Raises RunError for an unknown format, a folder without
    weights, and a missing package.
    """
    if format not in FORMATS:
        raise RunError(f"--format must be one of {', '.join(FORMATS)}; got {format!r}")
    folder = RunFolder.for_reading(Path(run))
    recipe, backbone = folder.recipe(), folder.backbone()
    suffix = {"timm": "pth", "safetensors": "safetensors", "onnx": "onnx"}[format]
    out = out or folder.path / f"backbone_{format}.{suffix}"
    if format == "onnx":
        return _onnx(backbone.network, recipe, out)
    state = {name: tensor.contiguous() for name, tensor in backbone.network.state_dict().items()}
    if format == "timm":
        torch.save(state, out)
        read = f'torch.load("{out}", weights_only=True)'
    else:
        save_file(state, out)
        read = f'safetensors.torch.load_file("{out}")'
    return f"written to {out}; load it with\n\n{loading_code(recipe, read)}"


def loading_code(recipe: Recipe, read: str) -> str:
    """Python code that builds the network without wildfern and loads all weights."""
    model = recipe.model
    if model.backbone == "small_alexnet":
        make = [
            "import torch",
            "from wildfern.ssl.models import SmallAlexNet",
            f"model = SmallAlexNet(**{model.arguments!r})",
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
        make = [
            "import timm, torch",
            f'model = timm.create_model("{model.backbone}", num_classes=0{_written(model.arguments)})',
        ]
    if model.stem == "cifar":
        make += [
            "first = model.conv1  # the recipe's stem is cifar: 3×3, stride 1, no pooling",
            "model.conv1 = torch.nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)",
            "model.maxpool = torch.nn.Identity()",
        ]
    if read.startswith("safetensors"):
        make.insert(0, "import safetensors.torch")
    return "\n".join(f"    {line}" for line in [*make, f"model.load_state_dict({read})"])


def _written(arguments: dict[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in arguments.items())


def _onnx(network: nn.Module, recipe: Recipe, out: Path) -> str:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise RunError("exporting to ONNX needs two more packages: pip install 'wildfern[onnx]'") from None
    views = VIEWS[recipe.views.name](**recipe.views.arguments)
    size, channels = max(size for _, size in views.shape), views.channels
    example = torch.zeros(2, channels, size, size)
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        network,
        (example,),
        out,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    mean, std = (", ".join(f"{value:g}" for value in values) for values in views.normalization)
    what = f"in [0, 1], less ({mean}), divided by ({std})"
    if views.intensity_order is not None:
        what = "standardized local intensity orders"
    elif views.normalization == (MEAN, STD):
        what = "normalized as ImageNet"
    return f"written to {out}: float32 images [batch, {channels}, {size}, {size}], {what} -> features"
