"""The views of a training step: one table of parameters, one pass over the images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.ssl.augmentation.blur import GaussianBlur
from wildfern.ssl.augmentation.color import ColorJitter, Solarize, brightness_contrast
from wildfern.ssl.augmentation.crop import crop_views
from wildfern.ssl.augmentation.crop_geometry import crop_geometry, crop_masks, crop_masks_on_host, sides
from wildfern.ssl.augmentation.fourier_adapted_views import FourierAdaptationSettings, FourierAdaptedViews
from wildfern.ssl.augmentation.host_crops import crop_images
from wildfern.ssl.augmentation.host_views import render_crops, render_views
from wildfern.ssl.augmentation.input_images import (
    checked_images,
    checked_masks,
    merged_views,
    to_device,
    views_of_images,
)
from wildfern.ssl.augmentation.kornia_operation import Parameters, build_operations
from wildfern.ssl.augmentation.local_intensity_order import LocalIntensityOrder
from wildfern.ssl.augmentation.normalization import checked_normalization
from wildfern.ssl.augmentation.operation import on_device
from wildfern.ssl.augmentation.packed_table import PackedTable, pack
from wildfern.ssl.augmentation.pixmix_views import PixMixSettings, PixMixViews
from wildfern.ssl.augmentation.table import AugmentationParameters, ViewSettings, draw_table
from wildfern.ssl.augmentation.view_batch import ViewBatch


class Views(nn.Module):
    """Views in groups of one size each: `groups[g][v]` are the settings of view v of group g.

    Views are numbered through all groups; with paired images, odd views show the paired image. `prepare` runs on the host, in
    loader threads; calling the module runs on the device (on a CPU, in a compiled kernel). After crop and colors, each view goes
    through Fourier domain adaptation, PixMix and the operations of `extra` (see `build_operations`), as far as given, and is
    normalized with `mean` and `std`, for pixels in [0, 1] (ImageNet's if neither is given). With `local_intensity_order`, a view
    is the four standardized channels of that transform instead.

    Images have as many channels as `mean` has numbers. Saturation, hue and gray change RGB only: for other channels they are left
    out, see `notes`; Fourier domain adaptation and PixMix need RGB, the local intensity order RGB or one channel.

    `dtype`, which can be set later, is float32 or bfloat16: views are computed in float32 and rounded once, at the end. Raises
    ValueError for no views, an empty group, different sizes in a group, and other types.

    A preset is a function that returns `Views` or a subclass, registered under a name in `VIEWS`.
    """

    def __init__(
        self,
        groups: list[list[ViewSettings]],
        extra: Sequence[Mapping[str, Any] | Callable[[int], nn.Module]] = (),
        fourier_adaptation: FourierAdaptationSettings | None = None,
        pixmix: PixMixSettings | None = None,
        local_intensity_order: bool = False,
        dtype: torch.dtype = torch.float32,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.normalization = checked_normalization(mean, std)
        channels = self.input_channels = len(self.normalization[0])
        if channels != 3:
            _check_rgb_operations(channels, fourier_adaptation, pixmix, local_intensity_order)
        if not groups:
            raise ValueError("no groups of views: at least one is needed")
        for group in groups:
            if not group:
                raise ValueError("a group of views is empty: at least one view is needed")
            if len({view.size for view in group}) > 1:
                raise ValueError("the views of a group must have one size")
            if len({view.interpolation for view in group}) > 1:
                raise ValueError("the views of a group must have one interpolation")
        self.dtype = dtype
        self.groups = groups if channels == 3 else [[_without_color(view) for view in group] for group in groups]
        self.notes: list[str] = []
        left_out = [n for n in _COLOR if any(getattr(v, n) and (v.jitter or n == "gray") for g in groups for v in g)]
        if left_out and channels != 3:
            self.notes.append(
                f"views: {', '.join(left_out)} are left out: they change RGB, and the images have {channels} channels"
            )

        def chain(size: int, crop_pixels: tuple[float, float] | None) -> nn.ModuleList:
            adapted = [] if fourier_adaptation is None else [FourierAdaptedViews(fourier_adaptation, size, crop_pixels)]
            mixed = [] if pixmix is None else [PixMixViews(pixmix, size)]
            try:
                operations = build_operations(extra, size, channels)
            except ValueError as error:
                raise ValueError(f"extra: {error}") from error
            return nn.ModuleList([*adapted, *mixed, *operations])

        self.extra = nn.ModuleList(chain(group[0].size, group[0].crop_pixels) for group in groups)
        self.intensity_order = LocalIntensityOrder(standardize=True) if local_intensity_order else None
        self.color, self.blur, self.solarize = ColorJitter(), GaussianBlur(), Solarize()
        for name, numbers in zip(("mean", "std"), self.normalization, strict=True):
            self.register_buffer(name, torch.tensor(numbers).view(1, -1, 1, 1), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the views that the module returns."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: torch.dtype) -> None:
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"views must be float32 or bfloat16, not {dtype}")
        self._dtype = dtype

    @property
    def shape(self) -> list[tuple[int, int]]:
        """(number of views, size in pixels) of each group."""
        return [(len(group), group[0].size) for group in self.groups]

    @property
    def channels(self) -> int:
        """Channels of a view: those of the images (`input_channels`), or 4 with the local intensity order transform."""
        return self.input_channels if self.intensity_order is None else 4

    @property
    def skipped(self) -> dict[str, str]:
        """The unusable reference images found so far: name -> reason."""
        operations = (operation for chain in self.extra for operation in chain)
        references = (o.reference_images for o in operations if hasattr(o, "reference_images"))
        return {name: reason for images in references for name, reason in images.skipped.items()}

    @property
    def geometric_operations(self) -> list[str]:
        """Names of the operations after the crop that move pixels: masks and `geometry` do not follow them."""
        first = self.extra[0]  # the chains of all groups are alike
        moving = (operation for operation in first if getattr(operation, "moves_pixels", False))
        return [getattr(operation, "name", type(operation).__name__) for operation in moving]

    @property
    def _first_views(self) -> list[int]:
        """The number of each group's first view; views are numbered through all groups."""
        return [sum(len(group) for group in self.groups[:g]) for g in range(len(self.groups))]

    def draw(self, seed: int, step: int, positions: NDArray[np.int64]) -> list[AugmentationParameters]:
        """One table per group for the images at these positions of the global batch (int64[n])."""
        return [
            draw_table(group, seed, step, positions, first)
            for group, first in zip(self.groups, self._first_views, strict=True)
        ]

    def prepare(
        self,
        pixels: NDArray[np.uint8] | Tensor | list[NDArray[np.uint8]],
        seed: int,
        step: int,
        positions: NDArray[np.int64],
        paired_images: NDArray[np.uint8] | Tensor | list[NDArray[np.uint8]] | None = None,
        batch_size: int | None = None,
        masks: NDArray[np.uint8] | Tensor | list[NDArray[np.uint8]] | None = None,
        masked: NDArray[np.bool_] | None = None,
    ) -> ViewBatch:
        """Draw the parameters and, for images of different sizes (a sequence of uint8[H, W, 3]), crop and resize on the host.

        `paired_images`, in the form of `pixels`: the second images of pairs. `masks`: one value per pixel, uint8[n, H, W], or a
        sequence of uint8[H, W]; see `masks`. Tensors stay where they are. `batch_size`: of the global batch, if these positions
        are only a part of it; further operations draw for all of it. `masked`: bool[n], whether an image's source has masks (see
        `wildfern.ssl.data.Images`), for Fourier domain adaptation of these images only.

        Raises ValueError for images that are not uint8 with `input_channels` channels (or one, which is repeated to three), or
        not one for each position; for masks of another size, masks together with paired images, and masks together with an
        operation that moves pixels; for `masked` that is not bool[n], or is None where it is needed.
        """
        pixels, paired_images = checked_images(pixels, paired_images, len(positions), self.input_channels)
        if masks is not None:
            self._check_masks(paired_images)
            masks = checked_masks(masks, pixels)
        if masked is not None and (masked.dtype, masked.shape) != (np.bool_, (len(positions),)):
            raise ValueError(f"masked must be bool[{len(positions)}], not {masked.dtype}{list(masked.shape)}")
        tables = self.draw(seed, step, positions)
        boxes, geometry = self._crops(tables, pixels, paired_images)
        drawn = None
        for tensor in (pixels, masks):
            if isinstance(tensor, Tensor) and tensor.is_cuda:
                drawn = torch.cuda.current_stream(tensor.device).record_event()
        if isinstance(pixels, list):
            groups = list(zip(self._first_views, tables, boxes, self.shape, strict=True))
            if masks is not None:
                masks = [crop_masks_on_host(masks, box, table.flip, size) for _, table, box, (_, size) in groups]
            pixels = [
                crop_images(pixels, table, size, paired_images, first, box) for first, table, box, (_, size) in groups
            ]
            paired_images = None
        return ViewBatch(
            *(pixels, tables, boxes, geometry, paired_images, masks, drawn),
            extra=self._draw_extra(seed, step, positions, batch_size, masked),
            packed=self._packed(tables, boxes, geometry) if self._by_torch else None,
        )

    @property
    def _by_torch(self) -> bool:
        """Whether torch makes the views, not the compiled kernel for RGB on the CPU."""
        return self.mean.device.type != "cpu" or self.input_channels != 3

    def _crops(
        self, tables: list[AugmentationParameters], pixels: Any, paired_images: Any
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        """Boxes and geometry of each group; the odd views of pairs crop the second image, which may have another size."""
        out = []
        for first, table in zip(self._first_views, tables, strict=True):
            heights, widths = sides(pixels)
            boxes = table.boxes(heights, widths)
            if isinstance(paired_images, list):
                odd = (first + np.arange(len(boxes))[:, None]) % 2 == 1
                second_heights, second_widths = sides(paired_images)
                boxes = np.where(odd[..., None], table.boxes(second_heights, second_widths), boxes)
                heights, widths = np.where(odd, second_heights, heights), np.where(odd, second_widths, widths)
            out.append((boxes, crop_geometry(boxes, table.flip, heights, widths)))
        return [boxes for boxes, _ in out], [geometry for _, geometry in out]

    def _check_masks(self, paired_images: Any) -> None:
        if paired_images is not None:
            raise ValueError(
                "masks together with paired images are not supported: odd views show the paired image, which has no mask"
            )
        if moving := self.geometric_operations:
            raise ValueError(
                f"masks cannot follow {', '.join(moving)}, which moves pixels: remove it from the extra operations of the views"
            )

    def _packed(
        self,
        tables: list[AugmentationParameters],
        boxes: list[NDArray[np.int64]],
        geometry: list[NDArray[np.float32]],
    ) -> PackedTable:
        """The numbers of all groups."""
        groups = []
        for table, box, shares, (_, size) in zip(tables, boxes, geometry, self.shape, strict=True):
            numbers = {"boxes": box, "flip": table.flip, "geometry": shares}
            for operation in (self.color, self.blur, self.solarize):
                numbers |= operation.parameters_from(table, size, size)
            groups.append(numbers)
        return pack(groups, pinned=self.mean.device.type == "cuda")

    def masks(self, batch: ViewBatch) -> list[Tensor] | None:
        """The masks of the views, uint8[V, n, size, size] per group on the module's device; None for a batch without masks.

        They are cropped, resized (nearest neighbor) and flipped as their images are; no other operation acts on them. Pixel
        (i, j) of a view is pixel (top + ⌊(i + ½) · height / size⌋, left + ⌊(j + ½) · width / size⌋) of the mask, then flipped.
        """
        if batch.masks is None:
            return None
        device = self.mean.device
        if isinstance(batch.masks, list):
            return [to_device(masks, device) for masks in batch.masks]
        on_gpu = isinstance(batch.masks, Tensor) and batch.masks.is_cuda
        masks = to_device(batch.masks, device, batch.drawn if on_gpu else None)
        if batch.packed is not None:
            crops = [(numbers["boxes"], numbers["flip"]) for numbers in batch.packed.on(device)]
        else:
            crops = [
                (on_device(torch.from_numpy(boxes), device), on_device(torch.from_numpy(table.flip), device))
                for boxes, table in zip(batch.boxes, batch.tables, strict=True)
            ]
        return [
            crop_masks(masks, boxes, flip, size) for (boxes, flip), (_, size) in zip(crops, self.shape, strict=True)
        ]

    def geometry(self, batch: ViewBatch) -> list[Tensor]:
        """Where each view lies in the image it shows: float32[V, n, 5] per group, on the module's device.

        Left, top, right and bottom of the crop as shares of the image's width and height (0 to 1), then 1 if it was flipped,
        else 0. This is the box in whole pixels that was cropped. It leaves out what `geometric_operations` do afterwards.
        """
        device = self.mean.device
        if batch.packed is not None:
            return [numbers["geometry"] for numbers in batch.packed.on(device)]
        return [on_device(torch.from_numpy(geometry), device) for geometry in batch.geometry]

    @torch.no_grad()
    def forward(self, batch: ViewBatch) -> list[Tensor]:
        """[V, n, channels, size, size] of type `dtype` per group: normalized, on the module's device, channels last."""
        if self.mean.dtype != torch.float32:
            raise ValueError(f"views are computed in float32: set `dtype` in place of .to({self.mean.dtype})")
        views = self._on_device(batch) if self._by_torch else self._on_host(batch)
        if batch.extra is None:
            return views
        for group, operations, drawn in zip(views, self.extra, batch.extra, strict=True):
            for view, parameters in zip(group, drawn, strict=True):
                images = view
                for operation, numbers in zip(operations, parameters, strict=True):
                    images = operation(images, numbers)
                images = images.clamp(0, 1)
                view.copy_((images - self.mean) / self.std if self.intensity_order is None else images)
        if self.intensity_order is not None:
            codes = (self.intensity_order(group.flatten(0, 1)) for group in views)
            codes = (group.contiguous(memory_format=torch.channels_last) for group in codes)
            views = [group.unflatten(0, table.flip.shape) for group, table in zip(codes, batch.tables, strict=True)]
        return [group.to(self.dtype) for group in views]

    def _working_dtype(self, batch: ViewBatch) -> torch.dtype:
        """The type in which views are made: further operations need float32."""
        return self.dtype if batch.extra is None else torch.float32

    def _draw_extra(
        self,
        seed: int,
        step: int,
        positions: NDArray[np.int64],
        batch_size: int | None,
        masked: NDArray[np.bool_] | None,
    ) -> list[list[list[Parameters]]] | None:
        if self.intensity_order is None and not any(len(operations) for operations in self.extra):
            return None
        whole = int(positions.max(initial=-1)) + 1 if batch_size is None else batch_size

        def drawn(operation: nn.Module, view: int) -> Parameters:
            about = (masked,) if isinstance(operation, FourierAdaptedViews) else ()
            return operation.draw(seed, step, positions, view, whole, *about)

        return [
            [[drawn(operation, first + view) for operation in operations] for view in range(len(group))]
            for first, group, operations in zip(self._first_views, self.groups, self.extra, strict=True)
        ]

    def _on_host(self, batch: ViewBatch) -> list[Tensor]:
        """The views from the compiled kernel for the CPU, on as many threads as torch uses."""
        threads = torch.get_num_threads()
        normalization = self.normalization if batch.extra is None else None
        if isinstance(batch.pixels, list):
            return [
                render_crops(crops, table, threads, self._working_dtype(batch), normalization=normalization)
                for crops, table in zip(batch.pixels, batch.tables, strict=True)
            ]
        pixels, paired_images = (
            None if images is None else to_device(images, self.mean.device, batch.drawn).numpy()
            for images in (batch.pixels, batch.paired_images)
        )
        return [
            render_views(
                *(pixels, table, size, threads, self._working_dtype(batch), paired_images, first),
                normalization=normalization,
                boxes=boxes,
            )
            for first, table, boxes, (_, size) in zip(
                self._first_views, batch.tables, batch.boxes, self.shape, strict=True
            )
        ]

    def _on_device(self, batch: ViewBatch) -> list[Tensor]:
        """The views from torch operations, on any device; on the CPU they are the reference for the kernel."""
        device = self.mean.device
        whole, others = None, None
        if not isinstance(batch.pixels, list):
            whole = to_device(batch.pixels, device, batch.drawn).float().div_(255)
            if batch.paired_images is not None:
                others = to_device(batch.paired_images, device, batch.drawn).float().div_(255)
        numbers = (batch.packed or self._packed(batch.tables, batch.boxes, batch.geometry)).on(device)
        out = []
        for g, (first, table, (views, size)) in enumerate(
            zip(self._first_views, batch.tables, self.shape, strict=True)
        ):
            if whole is not None:
                n, boxes, flip = len(whole), numbers[g]["boxes"], numbers[g]["flip"]
                parts = [
                    (crop_views(shown, boxes[which], flip[which], size, table.interpolation), which)
                    for shown, which in views_of_images(whole, others, first)
                    if len(range(views)[which])
                ]
                images = parts[0][0] if others is None else merged_views(parts, views, n)
            else:
                crops = to_device(batch.pixels[g], device).flatten(0, 1)
                images = crops.permute(0, 3, 1, 2).float().div_(255)
            images = self._appearance(images, table, numbers[g])
            if batch.extra is None:
                images = (images - self.mean) / self.std
            images = images.to(self._working_dtype(batch), memory_format=torch.channels_last)
            out.append(images.unflatten(0, table.flip.shape))
        return out

    def _appearance(self, images: Tensor, table: AugmentationParameters, numbers: dict[str, Tensor]) -> Tensor:
        if (
            (table.brightness != 1).any()
            or (table.contrast != 1).any()
            or (table.saturation != 1).any()
            or (table.hue != 0).any()
            or table.gray.any()
        ):
            if self.input_channels == 3:
                images = self.color(images, dict(numbers))
            else:
                images = brightness_contrast(images, numbers["factors"], numbers["is_contrast"])
        if (table.sigma > 0).any():
            images = self.blur(images, dict(numbers))
        if (table.threshold <= 1).any():
            images = self.solarize(images, dict(numbers))
        return images


_COLOR = ("saturation", "hue", "gray")


def _without_color(view: ViewSettings) -> ViewSettings:
    return replace(view, saturation=0.0, hue=0.0, gray=0.0)


def _check_rgb_operations(channels: int, fourier_adaptation: Any, pixmix: Any, local_intensity_order: bool) -> None:
    for name, given in (("fourier_adaptation", fourier_adaptation), ("pixmix", pixmix)):
        if given is not None:
            raise ValueError(f"{name} needs RGB images, and mean names {channels} channels: leave it out")
    if local_intensity_order and channels != 1:
        raise ValueError(
            f"local_intensity_order needs RGB or gray images, and mean names {channels} channels: leave it out"
        )
