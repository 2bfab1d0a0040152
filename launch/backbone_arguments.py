"""The arguments that a recipe's backbone takes, from timm's signatures, and the image size of vision transformers."""

import inspect
from collections.abc import Callable
from typing import Any

from wildfern.recipes import Recipe

# Arguments that mean the same for all networks; others may differ, such as `channels` and `layers`.
COMMON = frozenset(
    {"img_size", "image_size", "dynamic_img_size", "global_pool", "drop_rate", "drop_path_rate", "dropout"}
)


def backbone_takes(name: str, key: str, former: str | None = None) -> bool:
    """Whether the backbone has an argument `key`; of the key `stem`, whether it can have the stem for small images.

    With `former`, whether the key also means the same as for this backbone: both are of one class, or the key is in `COMMON`.
    """
    network = _network(name)
    if network is None:
        return False
    if former is not None and key not in COMMON | {"in_chans", "stem"} and network is not _network(former):
        return False
    if key == "in_chans":  # of `Backbone` itself, for any network
        return True
    if key == "stem":
        return network.__name__ == "ResNet"
    parameter = _parameter(network, key)
    # torchvision's builders pass what has no default themselves, for example the layers of a ResNet; but not over a given size.
    own = name.startswith("torchvision/") and key != "image_size"
    return parameter is not None and not (own and parameter.default is parameter.empty)


def size_argument(name: str) -> str | None:
    """The argument for the image size: `img_size` of timm's transformers, `image_size` of torchvision's and small_alexnet."""
    return next((key for key in ("img_size", "image_size") if backbone_takes(name, key)), None)


def _default_size(name: str) -> int:
    """Pixels of the images that a network outside timm, with an argument `image_size`, is made for by default."""
    network = _network(name)
    parameter = network and _parameter(network, "image_size")
    return parameter.default if parameter and isinstance(parameter.default, int) else 224


def _parameter(network: type, key: str) -> inspect.Parameter | None:
    """The parameter `key` of a class, or of a parent class to which its constructor passes further keyword arguments."""
    for part in network.__mro__:
        parameters = inspect.signature(part).parameters
        if key in parameters:
            return parameters[key]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return None
    return None


def with_image_size(recipe: Recipe, announce: Callable[[str], None]) -> Recipe:
    """The recipe with the argument for the image size, for a backbone that is made for another size than that of the views.

    So a vision transformer trains on views of any size. For views of several sizes `dynamic_img_size` is set too. Values in the
    recipe are not changed.
    """
    import timm

    from wildfern.registry import VIEWS

    name, arguments = recipe.model.backbone, recipe.model.arguments
    key = size_argument(name)
    if key is None or {key, "dynamic_img_size"} & set(arguments):
        return recipe
    sizes = {size for _, size in VIEWS[recipe.views.name](**recipe.views.arguments).shape}
    cfg = timm.get_pretrained_cfg(name)
    default = cfg.input_size[-1] if cfg is not None else _default_size(name) if key == "image_size" else None
    added: dict[str, Any] = {} if max(sizes) == default else {key: max(sizes)}
    if len(sizes) > 1 and backbone_takes(name, "dynamic_img_size"):
        added["dynamic_img_size"] = True
    if not added:
        return recipe
    said = ", ".join(f"model.arguments.{key} to {str(value).lower()}" for key, value in added.items())
    announce(f"set {said}: views have {', '.join(map(str, sorted(sizes)))} px, {name} is made for {default} px")
    model = recipe.model.model_copy(update={"arguments": {**arguments, **added}})
    return recipe.model_copy(update={"model": model})


def _network(name: str) -> type | None:
    """The class that timm or torchvision builds for this name; None for an unknown one."""
    import timm
    import torch

    from wildfern.ssl.models.networks import OWN, TORCHVISION

    if name in OWN:
        return OWN[name]
    if name.startswith(TORCHVISION):
        return _torchvision_network(name.removeprefix(TORCHVISION))
    if not timm.is_model(name):
        return None
    built = inspect.signature(timm.model_entrypoint(name)).return_annotation
    if not inspect.isclass(built) or built is inspect.Signature.empty:
        with torch.device("meta"):  # 76 of timm's 1,300 entry points have no return annotation
            built = type(timm.create_model(name, pretrained=False, num_classes=0))
    return built if issubclass(built, torch.nn.Module) else None


def _torchvision_network(name: str) -> type | None:
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    built = inspect.signature(models.get_model_builder(name)).return_annotation
    return built if inspect.isclass(built) else None
