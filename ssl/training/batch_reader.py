"""The batch of each step: loader threads read and prepare it, the training thread completes it on the device."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.ssl.augmentation import ViewBatch, Views
from wildfern.ssl.data import Mixture
from wildfern.ssl.methods.batch import Batch


@dataclass(frozen=True)
class MicroBatch:
    """Micro-batch `part` of step `step`, prepared on the host: images or crops, and the parameters of their views."""

    step: int
    part: int
    prepared: ViewBatch


class BatchReader:
    """Micro-batch k of this rank: a pure function of k (rules 1 and 2).

    Step s = k // accumulation consumes the indices [s·B, (s+1)·B). Its micro-batches are consecutive parts of them, and rank r
    takes the r-th part of each. Call the reader with k in a loader thread, and `batch` with the result in the training thread.
    `masks`: whether the method needs masks; otherwise they are not read. Raises ValueError if the global batch does not divide
    into equal parts.
    """

    def __init__(
        self,
        mixture: Mixture,
        views: Views,
        *,
        seed: int,
        batch_size: int,
        accumulation: int = 1,
        channels_last: bool = True,
        masks: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        parts = accumulation * world_size
        if batch_size % parts:
            raise ValueError(
                f"training.batch_size {batch_size} does not divide into {accumulation} × {world_size} "
                "(accumulation × processes) equal parts"
            )
        self.mixture, self.views, self.seed, self.batch_size = mixture, views, seed, batch_size
        self.accumulation, self.channels_last, self.masks = accumulation, channels_last, masks
        self.rank, self.world_size, self.size = rank, world_size, batch_size // parts

    def __call__(self, k: int) -> MicroBatch:
        step, part = divmod(k, self.accumulation)
        images = self.mixture.read(self.indices(step, part))
        if not self.mixture.fixed_size:  # otherwise the crop of an image would depend on the other images of the batch
            images = images.as_lists()
        _check_labels(images.labels, self.mixture)
        prepared = self.views.prepare(
            images.pixels,
            self.seed,
            step,
            self.positions(part),
            images.paired_images,
            self.batch_size,
            images.masks if self.masks else None,
            images.masked,
        )
        about = {name: getattr(images, name) for name in ("labels", "source", "items", "parameters", "masked")}
        return MicroBatch(step, part, replace(prepared, **about))

    def batch(self, micro_batch: MicroBatch) -> Batch:
        """The batch on the device, with labels, masks and the other inputs of a method."""
        prepared, device = micro_batch.prepared, self.views.mean.device

        def on_device(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        return Batch(
            views=in_layout(self.views(prepared), self.channels_last),
            masks=self.views.masks(prepared),
            geometry=self.views.geometry(prepared),
            labels=None if prepared.labels is None else on_device(prepared.labels),
            source=on_device(prepared.source),
            seed=self.seed,
            step=micro_batch.step,
            positions=torch.from_numpy(self.positions(micro_batch.part)),
            part=micro_batch.part,
            parts=self.accumulation,
            items=None if prepared.items is None else on_device(prepared.items),
            parameters=None if prepared.parameters is None else on_device(prepared.parameters),
            masked=None if prepared.masked is None else on_device(prepared.masked),
        )

    def positions(self, part: int) -> NDArray[np.int64]:
        """Positions in the global batch of the images of this rank's micro-batch `part`: int64[n]."""
        return (part * self.world_size + self.rank) * self.size + np.arange(self.size)

    def indices(self, step: int, part: int) -> NDArray[np.int64]:
        """Indices, for `Mixture.read`, of the images of this rank's micro-batch `part` of a step: int64[n]."""
        return step * self.batch_size + self.positions(part)


def _check_labels(labels: NDArray[np.integer] | None, mixture: Mixture) -> None:
    """Raise ValueError for a label that its source does not declare: on a GPU it would end in a device-side assertion."""
    if labels is None:
        return
    classes = mixture.sources[0].num_classes if len(mixture.sources) == 1 else None
    if classes is not None and labels.ndim == 1 and labels.max(initial=-1) >= classes:
        raise ValueError(f"the source declares {classes} classes but has the label {labels.max()}")


def in_layout(views: list[Tensor], channels_last: bool) -> list[Tensor]:
    """Each group of views with channels last or first in memory; shapes are unchanged, and copies are made only if needed."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [g.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, g.shape[:2]) for g in views]
