"""Fourier domain adaptation as a view operation, with the images of any source as targets."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from wildfern.generators.counter_rng import uniform
from wildfern.ssl.augmentation.fourier_adaptation import draw_adaptation, freecos_adaptation
from wildfern.ssl.augmentation.operation import on_device
from wildfern.ssl.augmentation.reference_images import ReferenceImages, rows_to_change
from wildfern.ssl.augmentation.view_keys import image_keys


class FourierAdaptationSettings(BaseModel):
    """With `probability`, a view gets the low-frequency amplitudes of an image of `data`, then blur and noise.

    `data` is a `wildfern.ssl.data.Source` or `Mixture` (in a recipe: like the section `data`). The default `ratio` is the
    largest β of Yang & Soatto (2020), without blur and noise; FreeCOS uses ratio 0.3, blur_kernel 13 and noise 5/255, and adapts
    only its synthetic images, which have masks, to the real ones (images "with_masks").
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    data: Any = Field(
        None,
        description="Source of the target images, whose amplitudes are used; null, with images: with_masks: the sources of the "
        "recipe's data that are not rendered.",
    )
    probability: float = Field(0.5, ge=0, le=1, description="Share of views that are adapted.")
    ratio: float = Field(0.09, ge=0, le=0.5, description="β: highest exchanged frequency, as a share of the side.")
    blur_kernel: Annotated[int, Field(ge=1)] = Field(
        1, description="Kernel of the following blur in pixels, odd; 1: none."
    )
    noise: float = Field(0.0, ge=0, le=1, description="Half-width of the following uniform noise; views are in [0, 1].")
    images: Literal["all", "with_masks"] = Field(
        "all", description="Adapt views of all images, or only of those whose source has masks."
    )
    targets: Literal["center", "crops"] = Field(
        "center", description="Target images: center squares, or random squares of crop_pixels of the views."
    )

    @field_validator("blur_kernel")
    @classmethod
    def _odd(cls, blur_kernel: int) -> int:
        if blur_kernel % 2 == 0:
            raise ValueError(f"must be odd, got {blur_kernel}")
        return blur_kernel


class FourierAdaptedViews(nn.Module):
    """`freecos_adaptation` of views of `size` px, with the interface of `KorniaOperation`, except that `draw` takes `masked`.

    Which views are changed, their target images and their noise are functions of (seed, step, position, view). Raises
    ValueError for a blur that is too large for the views.
    """

    def __init__(
        self, settings: FourierAdaptationSettings, size: int, crop_pixels: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        if settings.targets == "crops" and crop_pixels is None:
            raise ValueError(
                "fourier_adaptation: targets: crops are squares of crop_pixels of the views, which is not set"
            )
        if settings.blur_kernel // 2 >= size:
            raise ValueError(
                f"fourier_adaptation: a blur_kernel of {settings.blur_kernel} px is too large for views of {size} px"
            )
        self.settings, self.reference_images = settings, ReferenceImages(settings.data, size)
        self.crop_pixels = crop_pixels if settings.targets == "crops" else None

    def draw(
        self,
        seed: int,
        step: int,
        positions: NDArray[np.int64],
        view: int,
        batch: int | None = None,
        masked: NDArray[np.bool_] | None = None,
    ) -> dict[str, Tensor]:
        """`rows` int64[m]: the changed ones of n positions (int64[n]); their targets uint8[m, 3, S, S] and noise keys.

        `masked`: bool[n], whether an image's source has masks; with images "with_masks", others are not changed. Raises
        ValueError if it is missing then.
        """
        rows = rows_to_change("fourier_adaptation", self.settings.probability, seed, step, view, positions)
        if self.settings.images == "with_masks":
            if masked is None:
                raise ValueError(
                    "fourier_adaptation: images is with_masks, but no source of the data has masks: set it to all, or add a "
                    "source with masks"
                )
            rows = rows[masked[rows]]
        table = draw_adaptation(seed, step, positions[rows], view, len(self.reference_images))
        noise = torch.from_numpy(table.noise.view(np.int64))
        places = None
        if self.crop_pixels is not None:
            places = uniform(image_keys("fourier_adaptation crops", seed, step, view, positions[rows]), 3)
        targets = self.reference_images.read(table.target, self.crop_pixels, places)
        return {"rows": torch.from_numpy(rows), "targets": targets, "noise": noise}

    def forward(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """float[n, 3, S, S] in [0, 1] -> the same, changed by the parameters of `draw`."""
        rows, targets, noise = (on_device(parameters[n], images.device) for n in ("rows", "targets", "noise"))
        if not len(rows):
            return images
        settings, targets = self.settings, targets.to(images.dtype) / 255
        adapted = freecos_adaptation(images[rows], targets, noise, settings.ratio, settings.blur_kernel, settings.noise)
        return images.index_copy(0, rows, adapted)
