"""PixMix as an operation of views, with images of any source as the mixing set."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from wildfern.ssl.augmentation.operation import on_device
from wildfern.ssl.augmentation.pixmix import BETA, ROUNDS, SEVERITY, PixMixTable, draw_pixmix, pixmix
from wildfern.ssl.augmentation.second_images import SecondImages, rows_that_fire

_TABLE = [field.name for field in fields(PixMixTable)]


class PixMixSettings(BaseModel):
    """What happens to a view: with `probability`, up to `rounds` of mixing with an image of `data` or an augmented self.

    `data` is a `wildfern.ssl.data.Source` or `Mixture` (in a recipe: what the section `data` takes). Defaults are those published
    for CIFAR (Hendrycks et al., 2022).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    data: Any = Field(description="The mixing set: where fractals or other structured images come from.")
    probability: float = Field(1.0, ge=0, le=1, description="Share of views that are mixed.")
    rounds: int = Field(ROUNDS, ge=0, le=100, description="The most rounds of mixing; from 0 to so many are drawn.")
    beta: float = Field(BETA, gt=0, description="β: the greater, the less of the mixing image.")
    severity: float = Field(SEVERITY, gt=0.1, le=10, description="Strength of the augmented copies.")


class PixMixViews(nn.Module):
    """`pixmix` of views of `size` px, drawn and applied as `KorniaOperation` is.

    Which views are changed, how, and with which images are functions of (seed, step, position, view).
    """

    def __init__(self, settings: PixMixSettings, size: int) -> None:
        super().__init__()
        self.settings, self.second = settings, SecondImages(settings.data, size)

    def draw(
        self, seed: int, step: int, positions: NDArray[np.int64], view: int, batch: int | None = None
    ) -> dict[str, Tensor]:
        """`rows` int64[m] of the n positions (int64[n]) that are changed, their table, and `images` uint8[k, 3, S, S] for the
        k of them, `mixed` int64[k], that meet an image of the mixing set in some round."""
        settings = self.settings
        rows = rows_that_fire("pixmix", settings.probability, seed, step, view, positions)
        table = draw_pixmix(
            *(seed, step, positions[rows], view),
            rounds=settings.rounds,
            beta=settings.beta,
            severity=settings.severity,
            set_size=len(self.second),
        )
        played = np.arange(1, settings.rounds + 1) <= table.rounds[:, None]
        mixed = np.flatnonzero(
            (played & (table.kind[:, 1:] < 0)).any(axis=1)
        )  # the others' would be rendered for nothing
        return {
            "rows": torch.from_numpy(rows),
            "mixed": torch.from_numpy(mixed),
            "images": self.second.read(table.mixing[mixed]),
            **{name: torch.from_numpy(getattr(table, name)) for name in _TABLE},
        }

    def forward(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """float[n, 3, S, S] in [0, 1] with what `draw` gave for them; in [0, 1]."""
        rows, mixed, second = (on_device(parameters[n], images.device) for n in ("rows", "mixed", "images"))
        if not len(rows):
            return images
        chosen = images[rows].clamp(0, 1)  # a rounding below 0 has no power
        mixing = torch.zeros_like(chosen).index_copy_(0, mixed, second.to(chosen.dtype) / 255)
        table = PixMixTable(**{name: parameters[name].numpy() for name in _TABLE})
        return images.index_copy(0, rows, pixmix(chosen, mixing, table))
