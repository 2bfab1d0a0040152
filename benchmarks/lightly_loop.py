"""lightly's own SimCLR loop, from its documentation (docs.lightly.ai/examples/simclr.html): the baseline of `bench pipeline`.

Its transform on PIL images, its data set in torch's DataLoader with workers, its head and loss, SGD in float32 with the default
memory layout, the two views one after the other through the same backbone as ours.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WORKERS = 2
IMAGES = 1_000_000  # of an epoch, by repetition, so that none ends during a measurement


class ImagesInMemory(Dataset):
    """The images uint8[n, S, S, 3], repeated up to `length`, as a torchvision dataset: PIL, transformed, with a label."""

    transform = None  # lightly sets it

    def __init__(self, pixels: NDArray[np.uint8], length: int) -> None:
        self.length = length
        self.images = [Image.fromarray(image) for image in pixels]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self.transform(self.images[index % len(self.images)]), 0


class SimCLRModel(nn.Module):
    """Backbone and lightly's projection head."""

    def __init__(self, backbone: nn.Module, hidden: int, size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(backbone.width, hidden, size)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection_head(self.backbone(images).flatten(start_dim=1))


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.06)


def _endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


class LightlyLoop:
    """The loop; each call is one step. `close()` ends the workers.

    `views` are wildfern's names for the settings of SimCLR's transform, `temperature` is of the loss, `epoch` the number of
    images after which they are shuffled again, and `optimizer` makes the optimizer of the parameters.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        model: SimCLRModel,
        views: dict,
        temperature: float,
        batch_size: int,
        device: torch.device,
        epoch: int = IMAGES,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = sgd,
    ) -> None:
        transform = SimCLRTransform(
            input_size=views["size"],
            cj_bright=views["brightness"],
            cj_contrast=views["contrast"],
            cj_sat=views["saturation"],
            cj_hue=views["hue"],
            min_scale=views["crop_scale"][0],
            gaussian_blur=views["blur"],
            hf_prob=views["flip"],
        )
        dataset = LightlyDataset.from_torch_dataset(
            ImagesInMemory(pixels, epoch), transform=transform, index_to_filename=lambda dataset, index: str(index)
        )
        loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=WORKERS)
        self.model, self.device = model.to(device), device
        self.criterion = NTXentLoss(temperature=temperature)
        self.optimizer = optimizer(model.parameters())
        self.batches = _endless(loader)

    def __call__(self) -> float:
        (x0, x1), _, _ = next(self.batches)
        z0 = self.model(x0.to(self.device))
        z1 = self.model(x1.to(self.device))
        loss = self.criterion(z0, z1)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def close(self) -> None:
        del self.batches
