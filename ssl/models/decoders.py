"""Decoders: from the feature maps of a backbone to a logit for each pixel."""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.unet_encoder import convolutions
from wildfern.ssl.models.width import meta_copy

DecoderName = Literal["unet", "fpn"]
NARROWEST = 16  # channels of the levels above the largest map
MOST_BLOCKS = 4  # of a vision transformer, whose maps have one size


class Decoder(nn.Module):
    """Common part of the decoders: which maps they take, the way up to full resolution, and the last layer.

    `maps` are (channels, side) of each map for images of `size` px, in the order of `Backbone.maps`. Of maps of one side the last
    is taken; if all have one side, as those of a vision transformer, up to four evenly spaced ones, concatenated.
    """

    def __init__(self, maps: Sequence[tuple[int, int]], size: int, width: int) -> None:
        super().__init__()
        last = {side: number for number, (_, side) in enumerate(maps)}
        one_side = len(last) == 1 and len(maps) > 1
        count = min(MOST_BLOCKS, len(maps))
        spaced = [round((number + 1) * len(maps) / count) - 1 for number in range(count)]
        #: Numbers of the maps of each level, the largest level first.
        self.levels = [spaced] if one_side else [[last[side]] for side in sorted(last, reverse=True)]
        self.channels = [sum(maps[number][0] for number in level) for level in self.levels]
        self.width = width
        self._steps = max(0, round(math.log2(size / maps[self.levels[0][0]][1])))

    def _finish(self, channels: int) -> None:
        """Make the layers above the largest map, which has `channels` after decoding."""
        widths = [max(min(channels, NARROWEST), channels // 2 ** (step + 1)) for step in range(self._steps)]
        self.up = nn.ModuleList(convolutions(i, o, 1) for i, o in pairwise([channels, *widths]))
        self.features_width = widths[-1] if widths else channels
        self.classify = nn.Conv2d(self.features_width, 1, 1)

    def _inputs(self, maps: list[Tensor]) -> list[Tensor]:
        return [torch.cat([maps[number] for number in level], dim=1) for level in self.levels]

    def _to_full_size(self, x: Tensor, size: int) -> Tensor:
        for step, layer in enumerate(self.up):
            side = size if step + 1 == len(self.up) else 2 * x.shape[-1]
            x = layer(_resized(x, side))
        return _resized(x, size)

    def features(self, maps: list[Tensor], size: int) -> Tensor:
        """The map before the last layer: float[N, features_width, size, size]."""
        raise NotImplementedError

    def forward(self, maps: list[Tensor], size: int) -> Tensor:
        """Logits float[N, size, size] of the maps of images of `size` px."""
        return self.classify(self.features(maps, size))[:, 0]


class UNetDecoder(Decoder):
    """The expanding path of a U-Net (Ronneberger et al., 2015): upsample, concatenate the map of the next level, convolve twice.

    Upsampling is to the nearest pixel, then a 3×3 convolution, as in FreeCOS. A level has as many channels as its map, at most
    `width`.
    """

    def __init__(self, maps: Sequence[tuple[int, int]], size: int, width: int = 512) -> None:
        super().__init__(maps, size, width)
        widths = [min(width, channels) for channels in self.channels]
        below = self.channels[-1] if len(widths) > 1 else widths[-1]
        self.reduce = nn.Identity() if len(widths) > 1 else convolutions(self.channels[-1], below, 1)
        ups, joins = [], []
        for channels, own in zip(self.channels[-2::-1], widths[-2::-1], strict=True):
            ups.append(convolutions(below, own, 1))
            joins.append(convolutions(own + channels, own))
            below = own
        self.ups, self.joins = nn.ModuleList(ups), nn.ModuleList(joins)
        self._finish(below)

    def features(self, maps: list[Tensor], size: int) -> Tensor:
        *skips, deepest = self._inputs(maps)
        x = self.reduce(deepest)
        for up, join, skip in zip(self.ups, self.joins, reversed(skips), strict=True):
            x = join(torch.cat([skip, up(_resized(x, skip.shape[-1]))], dim=1))
        return self._to_full_size(x, size)


class FPNDecoder(Decoder):
    """A feature pyramid (Lin et al., 2017): each map projected to `width` channels and added to the upsampled one below it."""

    def __init__(self, maps: Sequence[tuple[int, int]], size: int, width: int = 128) -> None:
        super().__init__(maps, size, width)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.channels)
        self.smooth = convolutions(width, width, 1)
        self._finish(width)

    def features(self, maps: list[Tensor], size: int) -> Tensor:
        inputs = self._inputs(maps)
        x = self.lateral[-1](inputs[-1])
        for lateral, skip in zip(self.lateral[-2::-1], inputs[-2::-1], strict=True):
            x = lateral(skip) + _resized(x, skip.shape[-1])
        return self._to_full_size(self.smooth(x), size)


DECODERS: dict[str, type[Decoder]] = {"unet": UNetDecoder, "fpn": FPNDecoder}


def make_decoder(backbone: Backbone, name: DecoderName = "unet", width: int = 512) -> Decoder:
    """A decoder for the maps of this backbone. Raises ValueError for a backbone without maps."""
    return DECODERS[name](measure_maps(backbone), backbone.size, width)


@torch.no_grad()
def measure_maps(backbone: Backbone) -> list[tuple[int, int]]:
    """(channels, side) of each map for images of `backbone.size` px, from a pass without values.

    Raises ValueError for a backbone without maps.
    """
    if not hasattr(backbone.network, "forward_intermediates"):
        raise ValueError(
            f"{backbone.name} has no feature maps: choose unet, or a timm model with forward_intermediates"
        )
    trial = copy.copy(backbone)
    trial.__dict__["_modules"] = {"network": meta_copy(backbone.network)}
    images = (2, backbone.in_chans, backbone.size, backbone.size)
    try:
        with torch.device("meta"):
            maps = trial.maps(torch.zeros(images))
    except Exception:  # of an operation without a meta kernel
        trial.__dict__["_modules"] = {"network": copy.deepcopy(backbone.network).eval()}
        maps = trial.maps(torch.zeros(images))
    return [(found.shape[1], found.shape[-1]) for found in maps]


def _resized(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="nearest")
