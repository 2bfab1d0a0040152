"""`Batch`, `Embedded` and `Output`: the input and the results of a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Self

import numpy as np
import torch
from torch import Tensor

from wildfern.generators.counter_rng import fold, key, uniform

Metrics = dict[str, Tensor]
LOGGED = (
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
)  # names in `metrics.jsonl` that metrics of a method cannot have
_STEPS_24_BITS = 2**24  # float32 holds every multiple of 2**-24 in [0, 1), so that no draw is rounded up to 1


@dataclass
class Batch:
    """n images of this rank: views, and everything else that a method may use.

    views: float[V, n, C, S, S] for each group of views of one size.
    masks: uint8[V, n, S, S] for each group, cropped and flipped with their views; None where no source has masks.
    geometry: float32[V, n, 5] for each group: left, top, right and bottom of the crop as shares of the source image, and
        whether it was flipped (0 or 1).
    labels: int64[n], -1 for unlabeled images; or uint8[n, K], one column for each class; None where no source has labels.
    masked: bool[n], whether an image's source has masks; those of other images are 0. None where no source has masks.
    source: int64[n], the number of each image's entry of `data`.
    seed, step: the seed of the run and the number of the step.
    positions: int64[n] on the CPU, the positions of the images in the global batch.
    part, parts: the number of this part of the global batch, from 0, and how many parts are accumulated per step.
    items: int64[n], the number of each image among those of all finite sources of `data`, the same in every epoch; -1 for images
        of endless sources.
    parameters: float32[n, P], the continuous parameters that each image was rendered with, standardized, NaN for images of
        sources without; only if the method needs them.
    """

    views: list[Tensor]
    masks: list[Tensor] | None
    geometry: list[Tensor]
    labels: Tensor | None
    source: Tensor
    seed: int
    step: int
    positions: Tensor
    part: int = 0
    parts: int = 1
    items: Tensor | None = None
    parameters: Tensor | None = None
    masked: Tensor | None = None

    def __len__(self) -> int:
        return self.views[0].shape[1]

    @property
    def device(self) -> torch.device:
        return self.views[0].device

    def uniform(self, name: str, *shape: int) -> Tensor:
        """float32[n, *shape] in [0, 1), on the device of the views.

        A pure function of (seed, step, position, name), so independent of the number of ranks and of resuming. Use a different
        name for each purpose.
        """
        image_keys = fold(fold(np.array([key("batch", name, self.seed)], np.uint64), self.step), self.positions.numpy())
        numbers = np.floor(uniform(image_keys, prod(shape)) * _STEPS_24_BITS) / _STEPS_24_BITS
        drawn = torch.from_numpy(numbers.astype(np.float32)).view(-1, *shape)
        return drawn.to(self.device, non_blocking=True)

    def uniform_of_step(self, name: str, *shape: int) -> Tensor:
        """float32[*shape] in [0, 1), on the device of the views: the same for all images, micro-batches and ranks of a step.

        A pure function of (seed, step, name).
        """
        step_key = fold(np.array([key("step", name, self.seed)], np.uint64), self.step)
        numbers = np.floor(uniform(step_key, prod(shape)) * _STEPS_24_BITS) / _STEPS_24_BITS
        drawn = torch.from_numpy(numbers.astype(np.float32)).view(*shape)
        return drawn.to(self.device, non_blocking=True)

    @classmethod
    def from_views(
        cls,
        views: Sequence[Tensor],
        *,
        masks: Sequence[Tensor] | None = None,
        geometry: Sequence[Tensor] | None = None,
        labels: Tensor | None = None,
        source: Tensor | None = None,
        seed: int = 0,
        step: int = 0,
        positions: Tensor | None = None,
        part: int = 0,
        parts: int = 1,
        items: Tensor | None = None,
        parameters: Tensor | None = None,
        masked: Tensor | None = None,
    ) -> Self:
        """A batch for a custom training loop; by default a whole global batch of uncropped images, masked all or none."""
        device, n = views[0].device, views[0].shape[1]
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0], device=device)
        return cls(
            views=list(views),
            masks=None if masks is None else list(masks),
            geometry=[whole.expand(*v.shape[:2], 5) for v in views] if geometry is None else list(geometry),
            labels=labels,
            source=torch.zeros(n, dtype=torch.int64, device=device) if source is None else source,
            seed=seed,
            step=step,
            positions=torch.arange(n) if positions is None else positions,
            part=part,
            parts=parts,
            items=items,
            parameters=parameters,
            masked=torch.ones(n, dtype=torch.bool, device=device) if masks is not None and masked is None else masked,
        )


@dataclass
class Embedded:
    """The result of `ComparingMethod.embed` for the n images of a batch.

    embeddings: float[V, n, ...] by name, with gradient; the images are in dimension 1.
    features: as in `Output`.
    """

    embeddings: dict[str, Tensor]
    features: Tensor | None = None


@dataclass
class Output:
    """The result of `Method.forward`.

    loss: scalar; its mean over ranks is the loss of the global batch, and so is its gradient.
    metrics: detached scalars to log; their means over ranks are logged.
    features: float[n, F], detached: one row per image, for the online probe and the diagnostics; None if there are none.
    embeddings: float[V, N, D], detached: of two or more views of the same images, on which the loss acts, of any length; for
        `alignment` and `uniformity` in the log. None if the method has none.
    """

    loss: Tensor
    metrics: Metrics = field(default_factory=dict)
    features: Tensor | None = None
    embeddings: Tensor | None = None


def checked_output(output: object, where: str, batch: Batch | None) -> Output:
    """The output of the function named `where`, with metrics as detached tensors and features detached.

    Raises ValueError for anything but an `Output` with a scalar loss, scalar metrics and one row of features per image.
    """
    if not isinstance(output, Output):
        raise ValueError(f"{where} must return an Output, got {type(output).__name__}")
    if not isinstance(output.loss, Tensor) or output.loss.ndim:
        shape = list(output.loss.shape) if isinstance(output.loss, Tensor) else type(output.loss).__name__
        raise ValueError(f"{where} must return a scalar tensor as its loss, got {shape}")
    if torch.is_grad_enabled() and not output.loss.requires_grad:
        raise ValueError(f"{where}: the loss has no gradient; it must depend on trainable parameters, not detached")
    if not output.loss.is_floating_point():
        raise ValueError(f"{where} must return a loss of real numbers, got {output.loss.dtype}")
    if not isinstance(output.metrics, Mapping):
        raise ValueError(f"{where}: metrics must be a mapping, got {type(output.metrics).__name__}")
    metrics = {}
    for name, value in output.metrics.items():
        if not isinstance(name, str) or name in LOGGED:
            raise ValueError(f"{where}: metrics have texts as names, but not {', '.join(LOGGED)}; got {name!r}")
        try:
            metrics[name] = torch.as_tensor(value, device=output.loss.device).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{where}: the metric {name} must be a scalar, got {type(value).__name__}") from error
        if metrics[name].is_complex():
            raise ValueError(f"{where}: the metric {name} must be a real number, got {metrics[name].dtype}")
        if not metrics[name].is_floating_point():
            metrics[name] = metrics[name].float()
        if metrics[name].ndim:
            raise ValueError(f"{where}: the metric {name} must be a scalar, got {list(metrics[name].shape)}")
    features = None if batch is None else _checked_features(output.features, where, batch)
    return Output(output.loss, metrics, features, _checked_views(output.embeddings, where))


def checked_embeddings(embedded: object, where: str, batch: Batch) -> Embedded:
    """The result of the function `where`, with features detached.

    Raises ValueError for anything but an `Embedded` whose embeddings have the images in dimension 1 and a gradient.
    """
    if not isinstance(embedded, Embedded):
        raise ValueError(f"{where} must return an Embedded, got {type(embedded).__name__}")
    tensors = checked_by_image(embedded.embeddings, where, batch)
    if torch.is_grad_enabled() and not any(value.requires_grad for value in tensors.values()):
        raise ValueError(f"{where}: the embeddings have no gradient; they must depend on trainable parameters")
    return Embedded(tensors, _checked_features(embedded.features, where, batch))


def checked_by_image(tensors: object, where: str, batch: Batch) -> dict[str, Tensor]:
    """The tensors by name that the function `where` returned. Raises ValueError unless the images are in dimension 1."""
    if not isinstance(tensors, dict):
        raise ValueError(f"{where} must return tensors by name in a dict, got {type(tensors).__name__}")
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[1] != len(batch):
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{where}: {name} must be a tensor [V, {len(batch)}, ...], got {found}")
    return tensors


def _checked_features(features: object, where: str, batch: Batch) -> Tensor | None:
    if features is None:
        return None
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(batch):
        found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{where}: features must be [{len(batch)}, F], one row per image, got {found}")
    return features.detach()


def _checked_views(embeddings: object, where: str) -> Tensor | None:
    if embeddings is None:
        return None
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 3 or len(embeddings) < 2:
        found = list(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise ValueError(f"{where}: embeddings must be [V, N, D] of at least two views, got {found}")
    return embeddings.detach()
