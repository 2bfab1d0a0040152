"""Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) with mixed targets, for tasks with labels.

An image is mixed with another one of its group: `group` consecutive positions of the global batch are permuted. If the slices
of ranks are whole groups, W ranks mix as one process does, without communication.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import fold, uniform
from wildfern.ssl.augmentation.beta_distribution import beta
from wildfern.ssl.augmentation.operation import check_probabilities, on_device
from wildfern.ssl.augmentation.view_keys import image_keys


@dataclass(frozen=True)
class MixingTable:
    """How n images are mixed; an image that is not mixed has `weight` 1."""

    partner: NDArray[np.int64]  # [n] index of the other image among these n
    weight: NDArray[np.float64]  # [n] λ: the share of the image itself (before the box is clipped to the image)
    cut: NDArray[np.bool_]  # [n] CutMix if true, mixup if false
    center: NDArray[np.float64]  # [n, 2] of the box, as shares of height and width in [0, 1)


def draw_mixing(
    seed: int,
    step: int,
    positions: NDArray[np.int64],
    view: int,
    *,
    group: int,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    cutmix_share: float = 0.5,
    p: float = 1.0,
) -> MixingTable:
    """Draw for the images at these positions (int64[n], whole groups in order) of the global batch of step `step`.

    λ is Beta(α, α) for each image; α = 0 disables that kind of mixing. A share `p` of the images is mixed, `cutmix_share` of
    these by CutMix. The defaults are those of DeiT (Touvron et al., 2021), also used for contours and fractals, except that DeiT
    draws one λ per batch. Raises ValueError for positions that are not whole groups and for impossible probabilities or α.
    """
    check_probabilities(p=p, cutmix_share=cutmix_share)
    for name, value in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} must be 0 or more, got {value}")
    keys = image_keys("mixing", seed, step, view, positions)
    order, fires, kind = uniform(keys, 3).T
    if not cutmix_alpha or not mixup_alpha:
        cutmix_share = 1.0 if cutmix_alpha else 0.0
    cut = kind < cutmix_share
    weight = np.ones(len(keys))
    for part, alpha in ((~cut, mixup_alpha), (cut, cutmix_alpha)):
        part = part & (fires < p)
        if alpha and part.any():
            weight[part] = beta(fold(keys[part], 0), alpha, alpha)
    return MixingTable(_partners(positions, order, group), weight, cut, uniform(fold(keys, 1), 2))


def _partners(positions: NDArray[np.int64], order: NDArray[np.float64], group: int) -> NDArray[np.int64]:
    """A permutation of each group, by sorting one uniform per image."""
    positions = np.asarray(positions, np.int64)
    if group < 1 or len(positions) % group:
        raise ValueError(f"{len(positions)} images are not whole groups of {group}")
    rows = positions.reshape(-1, group)
    if (rows[:, :1] % group).any() or (rows != rows[:, :1] + np.arange(group)).any():
        raise ValueError(
            f"positions must be whole groups in order: {group} consecutive ones from a multiple of {group} on"
        )
    return (np.argsort(order.reshape(-1, group), axis=1, kind="stable") + np.arange(len(rows))[:, None] * group).ravel()


def cut_boxes(weight: NDArray[np.float64], center: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """int64[n, 4] (top, left, height, width): boxes of √(1 − λ) of each side around their centers, clipped to the image.

    CutMix, eq. 2, in whole pixels as published: half-sides round down, so a box has 2 · ⌊⌊H · √(1 − λ)⌋ / 2⌋ rows inside.
    """
    share = np.sqrt(1 - weight)
    edges = []
    for side, places in ((height, center[:, 0]), (width, center[:, 1])):
        middle, half = (places * side).astype(np.int64), (side * share).astype(np.int64) // 2
        edges.append((np.clip(middle - half, 0, side), np.clip(middle + half, 0, side)))
    (top, bottom), (left, right) = edges
    return np.stack([top, left, bottom - top, right - left], axis=1)


def mixup(images: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """λ x + (1 − λ) x[partner] for float[N, …], int64[N] and float[N]: images and targets alike (Zhang et al., eq. 1-2)."""
    weight = on_device(weight.to(images.dtype), images.device).view(-1, *[1] * (images.dim() - 1))
    return images[partner].lerp(images, weight)


def cutmix(images: Tensor, partner: Tensor, boxes: Tensor) -> Tensor:
    """float[N, C, H, W] with boxes int64[N, 4] (top, left, height, width) taken from their partners (CutMix, eq. 1)."""
    height, width = images.shape[-2:]
    top, left, box_height, box_width = boxes[:, :, None].unbind(1)
    rows, columns = (torch.arange(side, device=images.device)[None] for side in (height, width))
    inside_rows = (rows >= top) & (rows < top + box_height)
    inside_columns = (columns >= left) & (columns < left + box_width)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(inside, images[partner], images)


def soft_targets(labels: Tensor, num_classes: int) -> Tensor:
    """float32[N, C]: one-hot rows of labels int64[N] in [0, C); multi-hot rows [N, C] of any type are kept.

    Raises ValueError for labels of another shape or outside the classes (the latter not on a GPU, where the check would wait).
    """
    if labels.dim() == 2 and labels.shape[1] == num_classes:
        return labels.float()
    if labels.dim() != 1:
        raise ValueError(f"labels must be [N] or [N, {num_classes}], got {list(labels.shape)}")
    if not labels.is_cuda and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels are {int(labels.min())} to {int(labels.max())}, but classes are 0 to {num_classes - 1}"
        )
    targets = torch.zeros(len(labels), num_classes, device=labels.device)
    return targets.scatter_(1, labels.long()[:, None], 1.0)


def mix(images: Tensor, labels: Tensor, table: MixingTable, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mixed images float[N, 3, H, W] and their targets float32[N, num_classes], with λ from the area of the clipped box.

    `labels` are int64[N] or multi-hot [N, num_classes]. Raises ValueError as `soft_targets` does.
    """
    count, _, height, width = images.shape
    boxes = cut_boxes(np.where(table.cut, table.weight, 1.0), table.center, height, width)
    area = boxes[:, 2] * boxes[:, 3] / (height * width)
    share = np.where(table.cut, 1 - area, table.weight)
    targets = soft_targets(labels, num_classes)
    if len(table.partner) != count or len(targets) != count:
        raise ValueError(f"numbers differ: {count} images, {len(targets)} labels, a table for {len(table.partner)}")
    partner = on_device(torch.from_numpy(table.partner), images.device)
    if (~table.cut & (table.weight < 1)).any():
        mixed = mixup(images, partner, torch.from_numpy(np.where(table.cut, 1.0, table.weight)))
    else:
        mixed = images
    if (area > 0).any():
        boxed = cutmix(images, partner, on_device(torch.from_numpy(boxes), images.device))
        cut = on_device(torch.from_numpy(table.cut), images.device)
        mixed = torch.where(cut[:, None, None, None], boxed, mixed)
    return mixed, mixup(targets, partner, torch.from_numpy(share))
