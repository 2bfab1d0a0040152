"""Small images with masks in memory, a source of them, and a network whose maps and logits are functions of single pixels."""

import numpy as np
import torch
from torch import nn

from wildfern.ssl.data import Images, Source
from wildfern.ssl.evaluation import Preprocessing
from wildfern.ssl.evaluation.evaluator import MaskedImage, MaskedImages
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

WEIGHT = (3.0, -2.0, 1.0)
PLAIN = Preprocessing(16, "cpu", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class PixelNetwork(nn.Module):
    """Its only map is the normalized window; its logits are `weight` times that. Records the shapes of its windows."""

    def __init__(self, weight=WEIGHT, settings=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.in_chans, self.segmentation, self.seen = len(weight), settings or SegmentationSettings(16, (16, 16)), []

    def maps(self, x):
        self.seen.append(tuple(x.shape))
        return [x]

    def segment(self, x):
        self.seen.append(tuple(x.shape))
        return torch.einsum("nchw,c->nhw", x, self.weight)


def square_image(item, shape=(20, 24), channels=3, region=False):
    """Dark noise, in which the mask is a bright rectangle; with `region` the first two columns are outside the field of view."""
    rng = np.random.default_rng(item)
    pixels = rng.integers(0, 100, (*shape, channels)).astype(np.uint8)
    mask = np.zeros(shape, bool)
    top, left = rng.integers(1, shape[0] // 2), rng.integers(1, shape[1] // 2)
    mask[top : top + shape[0] // 3, left : left + shape[1] // 3] = True
    pixels[mask] += 130
    return MaskedImage(pixels, mask, np.arange(shape[1]) > np.full(shape, 1) if region else None, item)


def noisy_image(item, shape=(20, 24), region=False):
    """Random pixels and a random mask."""
    rng = np.random.default_rng(100 + item)
    inside = rng.random(shape) < 0.7 if region else None
    return MaskedImage(rng.integers(0, 256, (*shape, 3)).astype(np.uint8), rng.random(shape) < 0.3, inside, item)


def masked(images, backbone=None, preprocessing=PLAIN):
    """A split of these images."""
    return MaskedImages(lambda: iter(images), len(images), backbone or PixelNetwork(), preprocessing)


class Squares(Source):
    """A source of `square_image`s."""

    def __init__(self, items, **options):
        super().__init__()
        self.images = [square_image(item, **options) for item in items]
        self.num_items, self.channels = len(self.images), self.images[0].pixels.shape[2]

    def read(self, items):
        found = [self.images[item] for item in items]
        regions = None if found[0].region is None else [one.region.astype(np.uint8) for one in found]
        masks = [one.mask.astype(np.uint8) for one in found]
        return Images([one.pixels for one in found], masks=masks, regions=regions)


def values(scores):
    """The value of each metric."""
    return {score.metric: score.value for score in scores}
