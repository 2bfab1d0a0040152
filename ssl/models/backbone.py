"""Backbones: any timm model by name, and the small CIFAR encoder of the CACR paper."""

import difflib
from typing import Any, Literal

import timm
from torch import nn

from wildfern.ssl.models.small_alexnet import SmallAlexNet


def build_backbone(name: str, stem: Literal["standard", "cifar", "small"] = "standard", **arguments: Any) -> nn.Module:
    """A backbone without classifier: float[N, 3, S, S] -> float[N, num_features]; freshly initialized, never downloaded.

    `name` is a timm model name or `small_alexnet`; `arguments` go to `timm.create_model`. `stem="small"` is the field's
    change to ResNets for small images: a 3×3 first convolution of stride 1 and no max pooling (SimCLR, appendix B.9).
    Raises ValueError for an unknown name, with the nearest ones, and for a small stem on something that is no ResNet.
    """
    if name == "small_alexnet":
        if stem != "standard":
            raise ValueError("small_alexnet is made for small images already: leave stem at 'standard'")
        return SmallAlexNet(**arguments)
    if not timm.is_model(name):
        raise ValueError(f"unknown backbone {name!r}; {nearest_backbones(name)}")
    try:
        backbone = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except (TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name!r} with {arguments}: {error}") from error
    if stem in ("cifar", "small"):
        small_stem(backbone)
    return backbone


def nearest_backbones(name: str) -> str:
    """What somebody who wrote `name` may have meant, as the end of a sentence."""
    near = difflib.get_close_matches(name, [*timm.list_models(), "small_alexnet"], n=3)
    return f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"


def small_stem(resnet: nn.Module) -> None:
    """Give a timm ResNet, in place, a 3×3 first convolution of stride 1 and no max pooling."""
    first = getattr(resnet, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(resnet, "maxpool"):
        raise ValueError("stem 'small' is for timm ResNets whose stem is one convolution and a max pooling")
    resnet.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()
