"""Which network `wildfern init` takes for images of a size, a machine and a time."""

from dataclasses import dataclass, field
from typing import Any

# Networks of convolutions that ImageNet-pretrained code is written for, and the narrow one of the recipe quickstart for CPUs.
NARROW = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256], "stem_width": 32, "zero_init_last": False}
GFLOPS_224 = {"resnet50": 8.2, "resnet18": 3.6, "narrow": 0.50}  # of a forward pass on an image of 224 px
TRAINING = 6.0  # forward and backward pass (3 ×) of two views, per image
LEAST_IMAGES = 100_000  # that a run should see, as the recipe quickstart does


@dataclass(frozen=True)
class Network:
    """A backbone and the size of its views."""

    backbone: str
    size: int
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def image_flops(self) -> float:
        """FLOPs of training on one image, of two views."""
        name = "narrow" if "channels" in self.arguments else self.backbone
        return TRAINING * GFLOPS_224[name] * 1e9 * (self.size / 224) ** 2


# From the largest to the smallest.
NETWORKS = [
    Network("resnet50", 224),
    *(Network("resnet18", size) for size in (224, 160, 128, 96, 64)),
    *(Network("resnet18", size, NARROW) for size in (96, 64, 48, 32)),
]


def choose_network(side: int, flops: float, seconds: float) -> Network:
    """The largest network that sees 100 000 images in `seconds` at `flops` FLOP/s, on views not larger than the images.

    `side`: of the images, in pixels. The smallest network if none does.
    """
    most = max(48, 1.15 * side)  # smaller images are enlarged, as in the recipe quickstart
    possible = [network for network in NETWORKS if network.size <= most]
    fitting = [network for network in possible if LEAST_IMAGES * network.image_flops <= flops * seconds]
    return (fitting or possible[-1:])[0]
