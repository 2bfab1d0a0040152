"""The network of an export: the run's backbone with its recipe, what describes it, and images to compare features on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wildfern.files import open_reading
from wildfern.generators.counter_rng import key
from wildfern.launch.backbones import recipe_backbone
from wildfern.launch.errors import RunError
from wildfern.launch.loaded_backbone import load_backbone
from wildfern.launch.model_card import data_words
from wildfern.launch.run_folder import RunFolder
from wildfern.printable import printable
from wildfern.recipes import Recipe
from wildfern.ssl.augmentation import MEAN, STD, VIEWS

COMPARED = 3  # random images; not the number that a program is traced with


@dataclass(frozen=True)
class ExportNetwork:
    """A network in eval mode, on the CPU, and the recipe that builds it. `images` is timm's `pretrained_cfg`.

    `weights_sha256` is that of the backbone.safetensors from which the weights were read.
    """

    output: ClassVar[str] = "features"
    folder: RunFolder
    recipe: Recipe
    network: nn.Module
    images: dict[str, Any]
    weights_sha256: str

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        channels, height, width = self.images["input_size"]
        return channels, height, width

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}

    def rebuilt(self, state: dict[str, Tensor]) -> nn.Module:
        """The recipe's network, built anew, with all weights from `state`. Raises RuntimeError where one does not fit."""
        network = recipe_backbone(self.recipe).network
        network.load_state_dict(state)
        return network.eval()

    def random_images(self, count: int = COMPARED) -> Tensor:
        """float32[count, C, S, S] from the normal distribution, as normalized images are about."""
        generator = torch.Generator().manual_seed(key("export", 0))
        return torch.randn(count, *self.input_size, generator=generator)

    def compared_images(self) -> list[Tensor]:
        """Batches on which what was written must give the output of the run."""
        return [self.random_images()]

    def expected(self, images: Tensor) -> Tensor:
        """The output of the run."""
        return features(self.network, images)

    def dynamic_shapes(self) -> dict[int, Any]:
        """The dimensions of the images that an exported program leaves open, for `torch.export`."""
        return {0: torch.export.Dim("batch", min=1)}

    def attempts(self) -> "Sequence[ExportNetwork]":
        """What to export: the first of these that can be."""
        return (self,)

    def output_words(self) -> str:
        return self.output

    def applying(self, call: str) -> list[str]:
        """Lines of Python code around the call of the loaded network, on its images and its output."""
        return [call]

    def images_words(self) -> str:
        """How images become the input: `float32 images [batch, 3, 224, 224], normalized as ImageNet`."""
        views = VIEWS[self.recipe.views.name](**self.recipe.views.arguments)
        mean, std = (", ".join(f"{value:g}" for value in self.images[name]) for name in ("mean", "std"))
        how = f"in [0, 1], less ({mean}), divided by ({std})"
        if views.intensity_order is not None:
            how = "standardized local intensity orders"
        elif views.normalization == (MEAN, STD):
            how = "normalized as ImageNet"
        return f"float32 images [batch, {', '.join(map(str, self.input_size))}], {how}"

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What identifies and describes the weights, as texts; lists and mappings are JSON."""
        model = self.recipe.model
        data, licenses = data_words(self.folder, self.recipe)
        described = {
            "wildfern": version("wildfern"),
            "network": model.backbone,
            "arguments": json.dumps(model.arguments, default=str),
            "stem": model.stem,
            "method": self.recipe.method.name,
            **self.described_images(),
            "weights_sha256": self.weights_sha256,  # of the run's backbone.safetensors
            "recipe_sha256": file_sha256(self.folder.path / "recipe.yaml"),
            "data": data,
            "licenses": licenses,
        }
        return {name: printable(text) for name, text in described.items()}

    def described_images(self) -> dict[str, str]:
        """The part of `metadata` on the images, and on what becomes of them."""
        described = {name: json.dumps(self.images[name]) for name in ("input_size", "mean", "std")}
        return {**described, "interpolation": self.images["interpolation"]}


def export_network(folder: RunFolder) -> ExportNetwork:
    """The pretrained backbone of a run. Raises RunError like `load_backbone`."""
    backbone = load_backbone(folder.path)
    return ExportNetwork(
        folder, folder.recipe(), backbone.network, backbone.pretrained_cfg, backbone.weights_sha256 or ""
    )


def features(network: Any, images: Tensor) -> Tensor:
    """float32[N, width] of any callable."""
    with torch.no_grad():
        return network(images)


def largest_difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest magnitude of `expected`.

    Raises RunError for tensors of different shapes.
    """
    if found.shape != expected.shape:
        raise RunError(f"it gives {list(found.shape)} in place of {list(expected.shape)}")
    scale = expected.abs().max().item()
    return (found.double() - expected.double()).abs().max().item() / (scale or 1.0)


def file_sha256(file: Path) -> str:
    with open_reading(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
