"""PixMix as a view operation, with the images of any source as the mixing set."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from wildfern.ssl.augmentation.operation import on_device
from wildfern.ssl.augmentation.pixmix import BETA, ROUNDS, SEVERITY, PixMixTable, draw_pixmix, pixmix
from wildfern.ssl.augmentation.reference_images import ReferenceImages, rows_to_change

_TABLE = [field.name for field in fields(PixMixTable)]


class PixMixSettings(BaseModel):
    """With `probability`, a view is mixed for up to `rounds` rounds with an image of `data` or an augmented copy of itself.

    `data` is a `wildfern.ssl.data.Source` or `Mixture` (in a recipe: like the section `data`). Defaults are those published
    for CIFAR (Hendrycks et al., 2022).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    data: Any = Field(description="The mixing set: source of fractals or other structured images.")
    probability: float = Field(1.0, ge=0, le=1, description="Share of views that are mixed.")
    rounds: int = Field(
        ROUNDS, ge=0, le=100, description="Maximum number of rounds; the number is uniform from 0 to it."
    )
    beta: float = Field(BETA, gt=0, description="β: a greater value gives less weight to the mixing image.")
    severity: float = Field(SEVERITY, gt=0.1, le=10, description="Strength of the augmented copies.")


class PixMixViews(nn.Module):
    """`pixmix` of views of `size` px, with the interface of `KorniaOperation`.

    Which views are changed, how, and with which images are functions of (seed, step, position, view).
    """

    def __init__(self, settings: PixMixSettings, size: int) -> None:
        super().__init__()
        self.settings, self.reference_images = settings, ReferenceImages(settings.data, size)

    def draw(
        self, seed: int, step: int, positions: NDArray[np.int64], view: int, batch: int | None = None
    ) -> dict[str, Tensor]:
        """`rows` int64[m]: the changed ones of n positions (int64[n]), and their table. `images` uint8[k, 3, S, S]: the mixing
        images of the k of them, `mixed` int64[k], that are mixed with one in some round."""
        settings = self.settings
        rows = rows_to_change("pixmix", settings.probability, seed, step, view, positions)
        table = draw_pixmix(
            *(seed, step, positions[rows], view),
            rounds=settings.rounds,
            beta=settings.beta,
            severity=settings.severity,
            set_size=len(self.reference_images),
        )
        played = np.arange(1, settings.rounds + 1) <= table.rounds[:, None]
        mixed = np.flatnonzero((played & (table.kind[:, 1:] < 0)).any(axis=1))  # do not render unused mixing images
        return {
            "rows": torch.from_numpy(rows),
            "mixed": torch.from_numpy(mixed),
            "images": self.reference_images.read(table.mixing[mixed]),
            **{name: torch.from_numpy(getattr(table, name)) for name in _TABLE},
        }

    def forward(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """float[n, 3, S, S] in [0, 1] -> the same, changed by the parameters of `draw`."""
        rows, mixed, images_of_set = (on_device(parameters[n], images.device) for n in ("rows", "mixed", "images"))
        if not len(rows):
            return images
        chosen = images[rows].clamp(0, 1)  # a value rounded below 0 has no real power
        mixing = torch.zeros_like(chosen).index_copy_(0, mixed, images_of_set.to(chosen.dtype) / 255)
        table = PixMixTable(**{name: parameters[name].numpy() for name in _TABLE})
        return images.index_copy(0, rows, pixmix(chosen, mixing, table))
