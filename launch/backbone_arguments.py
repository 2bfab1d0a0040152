"""The arguments that a recipe's backbone takes, from timm's signatures, and the image size of vision transformers."""

import inspect
from collections.abc import Callable
from typing import Any

from wildfern.recipes import Recipe

# Arguments that mean the same for all networks; others may differ, such as `channels` and `layers`.
COMMON = frozenset({"img_size", "dynamic_img_size", "global_pool", "drop_rate", "drop_path_rate", "dropout"})


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
    parameter = inspect.signature(network).parameters.get(key)
    # torchvision's builders pass what has no default themselves, for example the layers of a ResNet.
    return parameter is not None and not (name.startswith("torchvision/") and parameter.default is parameter.empty)


def with_image_size(recipe: Recipe, announce: Callable[[str], None]) -> Recipe:
    """The recipe with `img_size` for a backbone that takes it and is made for another size than that of the views.

    So a vision transformer trains on views of any size. For views of several sizes `dynamic_img_size` is set too. Values in the
    recipe are not changed.
    """
    import timm

    from wildfern.registry import VIEWS

    name, arguments = recipe.model.backbone, recipe.model.arguments
    if {"img_size", "dynamic_img_size"} & set(arguments) or not backbone_takes(name, "img_size"):
        return recipe
    sizes = {size for _, size in VIEWS[recipe.views.name](**recipe.views.arguments).shape}
    cfg = timm.get_pretrained_cfg(name)
    default = cfg.input_size[-1] if cfg is not None else None
    added: dict[str, Any] = {} if max(sizes) == default else {"img_size": max(sizes)}
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

    from wildfern.ssl.models.networks import TORCHVISION

    if name == "small_alexnet":
        from wildfern.ssl.models import SmallAlexNet

        return SmallAlexNet
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
