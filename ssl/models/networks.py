"""Networks without classifier by name: timm's, torchvision's as `torchvision/NAME`, and own ones: `small_alexnet`, `unet`."""

import difflib
import re
from collections.abc import Iterator
from typing import Any, Literal

import timm
import torch
from timm.models.resnet import ResNet
from torch import nn

from wildfern.ssl.models.image_features import IMAGE_FEATURES
from wildfern.ssl.models.small_alexnet import SmallAlexNet
from wildfern.ssl.models.unet_encoder import UNetEncoder

Stem = Literal["standard", "cifar"]
TORCHVISION = "torchvision/"
#: Networks of this package.
OWN: dict[str, type[nn.Module]] = {"small_alexnet": SmallAlexNet, "unet": UNetEncoder}
STAGES = 4  # of a ResNet
STEM_WIDTH = 64  # of timm's, if it is one convolution
# Of the arguments of a network, so that a recipe of a stranger does not build one for hours or until the memory is full.
MOST_NUMBER = 100_000
MOST_PIXELS = 4096  # along one side of its images
MOST_BLOCKS = 1000
DEPTHS = ("layers", "depth", "depths", "num_layers", "stackwise_depth")
HUB = re.compile(r"^(hf[-_]hub:)?(timm[/:]|facebook/)")  # before timm's names in other programs
# timm's arguments that would load weights: only `weights` does.
OF_WEIGHTS = (
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "cache_dir",
)


def build_network(name: str, stem: Stem = "standard", in_chans: int = 3, **arguments: Any) -> nn.Module:
    """A freshly initialized network without classifier; nothing is downloaded. The arguments are those of `Backbone`.

    Raises ValueError for an unknown name, with the nearest ones, and for arguments that the network does not take.
    """
    if problem := unknown_network(name):
        raise ValueError(problem)
    if stem not in ("standard", "cifar"):
        raise ValueError(f"stem must be standard or cifar, got {stem!r}")
    if given := [key for key in OF_WEIGHTS if key in arguments]:
        raise ValueError(f"{given[0]} is not an argument here: set weights to timm or a file instead")
    _check_arguments({"in_chans": in_chans, **arguments})
    is_timm = name not in OWN and not name.startswith(TORCHVISION)
    if in_chans != 3 and not is_timm and name != "unet":
        raise ValueError(f"{name} takes 3 channels, in_chans is {in_chans}: choose a timm model or unet")
    if name in OWN:
        if stem != "standard":
            why = "is already a network for small images" if name == "small_alexnet" else "has no stem to replace"
            raise ValueError(f"{name} {why}: leave stem at 'standard'")
        return _made(OWN[name], name, arguments | ({} if name != "unet" else {"in_chans": in_chans}))
    if not is_timm:
        network = _made(_torchvision, name.removeprefix(TORCHVISION), arguments)
    else:
        channels = {} if in_chans == 3 else {"in_chans": in_chans}
        settings = {"num_classes": 0, **channels, **arguments}
        network = _made(timm.create_model, name, settings)
        if replaces_stem(network, arguments):
            width = arguments["stem_width"]
            network = _made(timm.create_model, name, settings | deep_stem(name, width))
            network.conv1 = stem_convolution(in_chans, width)
    if isinstance(network, ResNet):  # which would ignore further stages
        for key in {"layers", "channels"} & arguments.keys():
            if len(arguments[key]) != STAGES:
                raise ValueError(
                    f"{name}: model.arguments.{key} needs {STAGES} numbers, one for each stage: {arguments[key]}"
                )
    if stem == "cifar":
        cifar_stem(network)
    return network


def _check_arguments(arguments: dict[str, Any]) -> None:
    """Raise ValueError for values that networks take without complaint, or refuse only in training or in unclear words."""
    for key, value in arguments.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, str) and _is_number(one):
                raise ValueError(f"model.arguments.{key} is the text {one!r}: write the number without quotes")
            if key in ("img_size", "image_size", "in_chans") and one is not None and not _is_count(one):
                raise ValueError(f"model.arguments.{key} must be a whole number of at least 1, got {value!r}")
        _check_bulk(key, value)
        is_rate = key.startswith(("drop", "attn_drop")) or key.endswith(("_drop_rate", "dropout"))
        if is_rate and type(value) in (int, float) and not 0 <= value < 1:
            raise ValueError(f"model.arguments.{key} must be at least 0 and less than 1, got {value!r}")


def _check_bulk(key: str, value: Any) -> None:
    """Raise ValueError for numbers that are far beyond those of any network."""
    most = MOST_PIXELS if key in ("img_size", "image_size") else MOST_NUMBER
    numbers = list(_numbers(value))
    if numbers and max(numbers) > most:
        raise ValueError(f"model.arguments.{key} must be at most {most:,}, got {max(numbers):,}")
    if key in DEPTHS and sum(numbers) > MOST_BLOCKS:
        raise ValueError(f"model.arguments.{key} must be at most {MOST_BLOCKS:,} blocks together, got {sum(numbers):,}")


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unknown_network(name: str, nearest: bool = True) -> str | None:
    """None for a name that `build_network` knows, else an error message, with similar names if `nearest`."""
    if name in IMAGE_FEATURES:
        return f"{name} has no weights to train or load: it is a baseline for evaluations (wildfern evaluate --backbone {name})"
    if name in OWN or name in _torchvision_names(name):
        return None
    if timm.is_model(name):
        model, _, tag = name.partition(".")
        tags = [full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(model)]
        if not tag or tag in tags:
            return None
        return f"unknown tag {tag!r} of {model}; it has {', '.join(filter(None, tags)) or 'none'}"
    return f"unknown backbone {name!r}" + (f"; {nearest_backbones(name)}" if nearest else "")


def nearest_backbones(name: str) -> str:
    """Names similar to `name`, as the end of an error message; also of names as the hub and other programs write them."""
    plain = HUB.sub("", name.strip())
    torchvisions = TORCHVISION + re.split(r"[.:]", plain)[-1] if plain.startswith("torchvision") else plain
    for one in (torchvisions, plain, plain.lower()):
        if one not in (name, "") and unknown_network(one, nearest=False) is None:
            return f"did you mean {one}?"
    known = [*timm.list_models(), *_torchvision_names(name), *OWN]
    words = re.split(r"[-_/ ]+", plain.lower())
    near = sorted((model for model in known if plain and model.startswith(f"{plain}_")), key=len)
    near = near or sorted((m for m in known if len(words) > 1 and all(word in m for word in words)), key=len)
    near = near or difflib.get_close_matches(plain, known, n=3)
    near = near or sorted((m for m in known if len(words[0]) > 4 and words[0] in m), key=len)
    return f"did you mean {', '.join(near[:3])}?" if near else "timm.list_models() lists them"


def replaces_stem(network: nn.Module, arguments: dict[str, Any]) -> bool:
    """Whether `build_network` replaces the stem of timm's network because of the argument `stem_width`."""
    plain = isinstance(network, ResNet) and isinstance(network.conv1, nn.Conv2d)
    return plain and arguments.get("stem_width") not in (None, STEM_WIDTH)


def deep_stem(name: str, width: int) -> dict[str, Any]:
    """Arguments of a timm ResNet whose stem has `width` channels after three convolutions.

    timm documents `stem_width` as the width of a stem of one convolution too, but makes that always 64 channels wide. So
    `build_network` makes the network with this stem and replaces its convolutions by one. Raises ValueError for an odd width.
    """
    if type(width) is not int or width < 2 or width % 2:
        raise ValueError(f"{name}: model.arguments.stem_width must be an even number of at least 2, got {width!r}")
    return {"stem_type": "deep", "stem_width": width // 2}


def stem_convolution(in_chans: int, width: int) -> nn.Conv2d:
    """The 7×7 convolution of stride 2 of a ResNet's stem, initialized as timm does."""
    convolution = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def cifar_stem(resnet: nn.Module) -> None:
    """Replace a ResNet's stem, in place, by a 3×3 convolution of stride 1 without max pooling (SimCLR, appendix B.9)."""
    first = getattr(resnet, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(resnet, "maxpool"):
        raise ValueError(
            "stem 'cifar' is for ResNets whose stem is one convolution and a max pooling, such as resnet18; leave out "
            "model.stem for this network"
        )
    resnet.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()


def _made(make: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        return make(**arguments) if make in OWN.values() else make(name, **arguments)
    except Exception as error:  # timm and torchvision raise any error for arguments that they cannot use
        given = {key: value for key, value in arguments.items() if key != "num_classes"}
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, KeyError):  # of a table of names, for example of activation functions
            reason = f"{reason} is not one of the names that it knows"
        raise ValueError(f"cannot build {name!r} with model.arguments {given}: {reason}") from error


def _torchvision_names(name: str) -> list[str]:
    """The names of torchvision's classification models if `name` begins with `torchvision/`, else none."""
    if not name.startswith(TORCHVISION):
        return []
    from torchvision import models

    return [TORCHVISION + known for known in models.list_models(module=models)]


def _torchvision(name: str, **arguments: Any) -> nn.Module:
    arguments, classifier = torchvision_recipe(name, arguments)
    network = _with_classifier(name, arguments)
    network.set_submodule(classifier, nn.Identity())
    return network


def torchvision_recipe(name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Arguments of `get_model` for torchvision's model `name`, and the path of the classifier to replace.

    The classifier is the model's last linear or convolution layer.
    """
    if name in ("googlenet", "inception_v3"):  # auxiliary classifiers
        arguments = {"aux_logits": False, "init_weights": True, **arguments}
    try:
        with torch.device("meta"):
            network = _with_classifier(name, arguments)
    except (RuntimeError, NotImplementedError):  # RegNets compute their widths from tensors
        with torch.random.fork_rng(devices=[]):
            network = _with_classifier(name, arguments)
    return arguments, [path for path, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]


def _with_classifier(name: str, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, **arguments)
