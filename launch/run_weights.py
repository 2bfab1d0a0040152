"""`backbone.safetensors` of a run folder: written while the run trains, read by what uses the trained network."""

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wildfern.files import is_regular, open_reading, replacing
from wildfern.launch.backbones import initial_backbone, recipe_backbone
from wildfern.launch.errors import RunError, cannot_write
from wildfern.recipes import Recipe
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.checkpoint_file import read_tensors
from wildfern.ssl.training.checkpoints import checkpoint_steps


class RunWeights(ABC):
    """The weights in the run folder `path`, and those that its training started from."""

    path: Path

    @abstractmethod
    def recipe(self) -> Recipe:
        """The recipe of the run."""

    @abstractmethod
    def start_weights(self) -> dict[str, Any]:
        """What `environment.json` says about the weights that training started from; empty without any."""

    def write_backbone(self, state: dict[str, Tensor]) -> None:
        """Write `backbone.safetensors` atomically, under timm's names."""
        file = self.path / "backbone.safetensors"
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        # Not synced, since training would wait for it: the checkpoint has the same weights, from which a resumed run writes it.
        with replacing(file, sync=False) as beside:
            try:
                save_file(tensors, beside)
            except SafetensorError as error:  # a full disk too: safetensors raises no OSError
                raise RunError(cannot_write(file, error, self.path)) from error
            beside.chmod(self.path.stat().st_mode & 0o666)  # safetensors writes files that only their owner can read

    def backbone(self, trained: bool = True) -> Backbone:
        """The run's backbone in eval mode: pretrained, or (`trained=False`) as it was before training."""
        recipe = self.recipe()
        if not trained:
            return initial_backbone(recipe).eval()
        try:
            return recipe_backbone(recipe, str(self._weights())).eval()
        except RunError:
            raise
        except ValueError as error:
            if not str(error).startswith("model.weights:"):
                raise RunError(f"{self.path / 'recipe.yaml'}: {error}") from error
            reason = str(error).removeprefix("model.weights: ")
            raise RunError(f"{reason}; resuming the run writes it again") from error

    def backbone_tensors(self) -> dict[str, Tensor]:
        """The weights in `backbone.safetensors`, by name. Raises RunError for a missing or damaged file."""
        try:
            return read_tensors(self._weights(), only_safetensors=True)
        except RunError:
            raise
        except ValueError as error:
            raise RunError(f"{error}; resuming the run writes {self._weights()} again") from error

    def start_backbone(self, recipe: Recipe) -> tuple[Backbone | None, str | None]:
        """The backbone with the weights that training started from, in eval mode, or None and why it is left out.

        (None, None) if training started from random weights.
        """
        weights = recipe.model.weights
        if weights is None:
            return None, None
        recorded = self.start_weights().get("sha256")
        try:
            backbone = initial_backbone(recipe).eval()
        except ValueError as error:
            return None, f"the row `start` is left out: {error}"
        if recorded is not None and backbone.weights_sha256 != recorded:
            return None, f"the row `start` is left out: {weights} has changed since training started from it"
        return backbone, None

    def backbone_sha256(self) -> str:
        """The SHA-256 of `backbone.safetensors` as it is now, in hexadecimal."""
        with open_reading(self._weights()) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _weights(self) -> Path:
        weights = self.path / "backbone.safetensors"
        if not os.path.lexists(weights):
            if checkpoint_steps(self.path / "checkpoints"):
                raise RunError(
                    f"{self.path} has no backbone.safetensors yet: where checkpoints are sharded it is written at the end. "
                    f"wildfern checkpoint backbone {self.path} writes it from the newest checkpoint"
                )
            raise RunError(
                f"{self.path} has no backbone.safetensors yet: it is written with the first checkpoint; if the run has "
                f"stopped, continue it with --run {self.path} --resume"
            )
        if not is_regular(weights):
            raise RunError(refused(weights))
        return weights


def refused(file: Path) -> str:
    """Why a file that is there is not read, although it is a regular one for those who follow links."""
    try:
        open_reading(file).close()
    except OSError as error:
        return f"{file}: {error.strerror}"
    return f"{file} was replaced while it was read: try again"
