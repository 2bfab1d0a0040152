"""PixMix: images mixed with fractals and other structured images (Hendrycks et al., CVPR 2022).

An image x, or with probability ½ an augmented copy of it, goes through k rounds, k uniform in 0 … 4. In each round it is mixed
with y, which is either another augmented copy of x or an image of the mixing set (½ each), in one of two ways (½ each),

    add:       (a · (2x − 1) + b · (2y − 1) + 1) / 2
    multiply:  (2x)^a · (2y)^b / 2

and clipped to [0, 1]. With probability ½, a is Beta(β, 1) and b is Beta(1, β); else a is 1 + Beta(1, β) and b is −Beta(1, β).
An augmented copy is x after one of AugMix's operations. Rounds (4), β (3) and severity (3) are those published for CIFAR.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from kornia.augmentation import IntensityAugmentationBase2D
from numpy.typing import NDArray
from torch import Tensor

from wildfern.generators.counter_rng import fold, integers, uniform
from wildfern.ssl.augmentation.augmix_operations import OPERATIONS, augmented
from wildfern.ssl.augmentation.beta_distribution import beta as beta_variates
from wildfern.ssl.augmentation.operation import check_probabilities, on_device, positions_for
from wildfern.ssl.augmentation.view_keys import image_keys

ROUNDS, BETA, SEVERITY = 4, 3.0, 3.0
SET_SIZE = 2**32  # of a stream: large enough, and below the items of its test split


class Stream(Protocol):
    """What `wildfern.generators.make_stream` returns."""

    size: int

    def batch(self, indices: NDArray[np.int64]): ...


@dataclass(frozen=True)
class PixMixTable:
    """The parameters of n images for up to R rounds. Column 0 of `kind` and `level` is the start, column r is round r."""

    rounds: NDArray[np.int64]  # [n] k
    kind: NDArray[np.int64]  # [n, R + 1] operation of AugMix; −1: the image itself at the start, later the mixing image
    level: NDArray[np.float64]  # [n, R + 1] signed level of that operation
    multiply: NDArray[np.bool_]  # [n, R]
    a: NDArray[np.float64]  # [n, R]
    b: NDArray[np.float64]  # [n, R]
    mixing: NDArray[np.int64]  # [n] index of the mixing image


def draw_pixmix(
    seed: int,
    step: int,
    positions: NDArray[np.int64],
    view: int,
    *,
    rounds: int = ROUNDS,
    beta: float = BETA,
    severity: float = SEVERITY,
    set_size: int = SET_SIZE,
) -> PixMixTable:
    """The table of the images at these positions (int64[n]) of the global batch; `set_size`: images of the mixing set.

    Raises ValueError for a negative number of rounds, β ≤ 0, a severity outside (0.1, 10] and an empty or too large set.
    """
    if not 0 <= rounds < np.inf:
        raise ValueError(f"rounds must be a number of 0 or more, got {rounds}")
    if not 0 < beta < np.inf:
        raise ValueError(f"beta must be positive, got {beta}")
    if not 0.1 < severity <= 10:
        raise ValueError(f"severity must be in (0.1, 10], got {severity}")
    if not 1 <= set_size <= 2**32:
        raise ValueError(f"set_size must be between 1 and 2**32, got {set_size}")
    keys = image_keys("pixmix", seed, step, view, positions)
    slots = fold(keys[:, None], np.arange(rounds + 1))
    augments, kind, level, sign, multiply, brightens = np.moveaxis(uniform(slots, 6), -1, 0)
    a_less, a_more = (beta_variates(fold(slots, i), *shape) for i, shape in enumerate(((beta, 1), (1, beta))))
    b = beta_variates(fold(slots, 2), 1, beta)
    convex = brightens[:, 1:] < 0.5
    return PixMixTable(
        rounds=integers(keys, 1, rounds + 1)[:, 0],
        kind=np.where(augments < 0.5, (kind * len(OPERATIONS)).astype(np.int64), -1),
        level=np.where(sign < 0.5, 1, -1) * (0.1 + (severity - 0.1) * level),
        multiply=multiply[:, 1:] < 0.5,
        a=np.where(convex, a_less[:, 1:], 1 + a_more[:, 1:]),
        b=np.where(convex, b[:, 1:], -b[:, 1:]),
        mixing=integers(fold(keys, -1), 1, set_size)[:, 0],
    )


def add(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Weighted sum with gray (½) as zero."""
    return (a * (2 * x - 1) + b * (2 * y - 1) + 1) / 2


def multiply(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Weighted geometric mean with gray (½) as one; y is at least 10⁻³⁷, for negative b, as published."""
    return (2 * x) ** a * (2 * y).clamp(min=1e-37) ** b / 2


def pixmix(images: Tensor, mixing: Tensor, table: PixMixTable) -> Tensor:
    """float[N, 3, H, W] in [0, 1] mixed with `mixing`, of the same shape and range, by the table; in [0, 1].

    Raises ValueError for shapes that differ.
    """
    if mixing.shape != images.shape or len(table.rounds) != len(images):
        raise ValueError(
            f"shapes differ: images {list(images.shape)}, mixing images {list(mixing.shape)}, a table for {len(table.rounds)}"
        )
    dtype, device = images.dtype, images.device
    if dtype != torch.float64:
        images, mixing = images.float(), mixing.float()  # 10⁻³⁷ is 0 in half precision
    weights = torch.from_numpy(np.stack([table.a, table.b])).to(images.dtype)
    weights = on_device(weights, device)[..., None, None, None]
    multiplies = on_device(torch.from_numpy(table.multiply), device)[..., None, None, None]
    mixed = augmented(images, table.kind[:, 0], table.level[:, 0])
    for r in range(1, int(table.rounds.max(initial=0)) + 1):
        which = np.flatnonzero(table.rounds >= r)
        rows = on_device(torch.from_numpy(which), device)
        kind = table.kind[which, r]
        copies = augmented(images[rows], kind, table.level[which, r])
        uses_set = on_device(torch.from_numpy(kind < 0), device)[:, None, None, None]
        other = torch.where(uses_set, mixing[rows], copies)
        x, (a, b) = mixed[rows], weights[:, rows, r - 1]
        result = torch.where(multiplies[rows, r - 1], multiply(x, other, a, b), add(x, other, a, b))
        mixed[rows] = result.clamp_(0, 1)
    return mixed.to(dtype)


def mixing_images(stream: Stream, items: NDArray[np.int64]) -> Tensor:
    """uint8[n, 3, S, S]: images of a stream by index, for example `PixMixTable.mixing`."""
    return torch.as_tensor(stream.batch(items).images).permute(0, 3, 1, 2)


class PixMix(IntensityAugmentationBase2D):
    """PixMix with probability `p` as a kornia module; the mixing set is a stream with images of the same size.

    Raises ValueError if `p` is not a probability, and for settings that `draw_pixmix` refuses.
    """

    def __init__(
        self,
        stream: Stream,
        rounds: int = ROUNDS,
        beta: float = BETA,
        severity: float = SEVERITY,
        set_size: int = SET_SIZE,
        p: float = 1.0,
        *,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        check_probabilities(p=p)
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.stream = stream
        self.settings = dict(rounds=rounds, beta=beta, severity=severity, set_size=set_size)
        draw_pixmix(0, 0, np.arange(0), 0, **self.settings)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """kornia's hook for a module used alone, seeded by torch's generator; also reads the mixing images."""
        if tuple(batch_shape[-2:]) != (self.stream.size, self.stream.size):
            raise ValueError(f"the mixing stream has {self.stream.size} px, but the images {list(batch_shape[-2:])}")
        positions = positions_for(batch_shape[0], self.same_on_batch)
        table = draw_pixmix(int(torch.randint(2**62, ())), 0, positions, 0, **self.settings)
        if self.same_on_batch:  # one image, rendered once
            images = mixing_images(self.stream, table.mixing[:1]).repeat(len(positions), 1, 1, 1)
        else:
            images = mixing_images(self.stream, table.mixing)
        return {"images": images, **{name: torch.from_numpy(value) for name, value in vars(table).items()}}

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        table = PixMixTable(**{name: params[name].cpu().numpy() for name in PixMixTable.__dataclass_fields__})
        return pixmix(input, on_device(params["images"], input.device).to(input.dtype) / 255, table)
