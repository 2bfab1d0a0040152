"""Export the pretrained backbone."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from wildfern.launch.errors import RunError
from wildfern.launch.loaded_backbone import recipe_transform, timm_images
from wildfern.launch.model_card import write_model_card
from wildfern.launch.output_paths import check_not_of_a_run, writing
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import MEAN, STD, VIEWS
from wildfern.ssl.models.networks import TORCHVISION, deep_stem, replaces_stem, torchvision_recipe

# Suffixes of the files of each format; the first is the default.
SUFFIXES = {"timm": (".pth", ".pt", ".bin", ".ckpt"), "safetensors": (".safetensors",), "onnx": (".onnx",)}
FORMATS = tuple(SUFFIXES)
NAMES = {"timm": "exported.pth", "safetensors": "exported.safetensors", "onnx": "exported.onnx"}


def export_backbone(run: Path, format: str = "timm", out: Path | None = None) -> str:
    """Write the backbone in one of `FORMATS` and return how to load it.

    timm: a PyTorch state dict with timm's names, for `timm.create_model(…).load_state_dict(…)`. safetensors: the same
    tensors as safetensors. onnx: the network with a dynamic batch size. Missing folders of `out` are made. Raises RunError for
    an unknown format, a suffix of another format, a file that cannot be written, a folder without weights, and a missing package.
    The formats for PyTorch come with model_card.md, in the same folder.
    """
    if format not in FORMATS:
        raise RunError(f"--format must be one of {', '.join(FORMATS)}; got {format!r}")
    folder = RunFolder.for_reading(Path(run))
    out = folder.path / NAMES[format] if out is None else Path(out)
    _check_out(out, format)
    recipe, backbone = folder.recipe(), folder.backbone()
    state = {name: tensor.contiguous() for name, tensor in backbone.network.state_dict().items()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with writing(out) as path:
            if format == "onnx":
                return _onnx(backbone.network, recipe, path, out)
            if format == "timm":
                with path.open("wb") as file:  # to a path, torch would not say why a write failed
                    torch.save(state, file)
                read = f"torch.load({str(out)!r}, weights_only=True)"
            else:
                save_file(state, path)
                path.chmod(out.parent.stat().st_mode & 0o666)  # safetensors writes files that only their owner can read
                read = f"safetensors.torch.load_file({str(out)!r})"
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    except (RuntimeError, SafetensorError) as error:  # of torch's and safetensors' writers
        cause = error.__context__.strerror if isinstance(error.__context__, OSError) else str(error)
        raise RunError(f"cannot write {out}: {((cause or '').splitlines() or [type(error).__name__])[0]}") from error
    code = loading_code(recipe, backbone.network, read)
    card = write_model_card(folder, out, code)
    return f"written to {printable(out)}, with {printable(card.name)}; load it with\n\n{code}"


def _check_out(out: Path, format: str) -> None:
    """Raise RunError for a suffix that says another format, for a folder, and for a file of a run."""
    other = next((name for name, suffixes in SUFFIXES.items() if name != format and out.suffix in suffixes), None)
    if other is not None:
        raise RunError(
            f"--out {out} has the suffix of the format {other}, but --format is {format}: change one of them"
        )
    if out.is_dir():
        raise RunError(f"--out {out} is a folder: give the file to write, for example {out / NAMES[format]}")
    check_not_of_a_run(out)


def loading_code(recipe: Recipe, network: nn.Module, read: str) -> str:
    """Python code that builds the network without wildfern and loads all weights, with the preprocessing of its images."""
    model = recipe.model
    images = timm_images(*recipe_transform(recipe))
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
    if read.startswith("safetensors"):
        make.insert(0, "import safetensors.torch")
    make.append(f"model.load_state_dict({read})")
    if model.backbone == "small_alexnet" or model.backbone.startswith(TORCHVISION):
        make.append(f"preprocessing = {images}")
    elif images["input_size"][0] == 3:
        make.append("transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))")
    else:
        make.append("# images of other than three channels: resize, scale to [0, 1], less mean, divided by std")
    for entry in recipe.data:
        given = {key: entry.arguments.get(key) for key in ("bands", "value_range")}
        if said := [f"{key}={list(value)}" for key, value in given.items() if isinstance(value, tuple | list)]:
            make.append(f"# {entry.source} was read with {', '.join(said)}: scale the values of files in the same way")
    return "\n".join(f"    {line}" for line in make)


def _written(arguments: dict[str, Any]) -> str:
    return "".join(f", {key}={value!r}" for key, value in arguments.items())


def _onnx(network: nn.Module, recipe: Recipe, path: Path, out: Path) -> str:
    """Write the network to `path`, which becomes `out`."""
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
        path,
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
