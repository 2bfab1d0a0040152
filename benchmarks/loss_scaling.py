"""Time and peak memory of NT-Xent and CACR by the number of images, beside forms that hold the matrix of all pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightly.loss import NTXentLoss as LightlyNTXentLoss
from torch import Tensor
from torch.nn import functional as F

from wildfern.benchmarks.peak_memory import free_bytes, peak_bytes
from wildfern.benchmarks.result import compare
from wildfern.ssl.losses import CACRLoss, NTXentLoss

SIZES = (512, 2048, 8192, 16384)
VIEWS, DIMENSIONS, RANKS, TEMPERATURE = 2, 128, 8, 0.1
MOST_STEPS = 3  # times `seconds`, the longest step that is measured


@dataclass(frozen=True)
class _Loss:
    """A loss of views float[V, N, D], and whether its memory grows with N² (else with N)."""

    loss: Callable[[Tensor], Tensor]
    quadratic: bool = False


def scaling_rows(device: torch.device, seconds: float, sizes: tuple[int, ...] | None = None) -> list[dict]:
    """Rows for each number of images in `sizes` (`SIZES`), each measured for about `seconds`, or in two steps that take longer.

    A row is skipped if its step, by the one for fewer images, would take more than `MOST_STEPS` · seconds or more memory than is
    free; so a row takes at most about 2 · `MOST_STEPS` · seconds.
    """
    own, theirs = NTXentLoss(TEMPERATURE), LightlyNTXentLoss(TEMPERATURE)
    cacr = CACRLoss()
    losses = {
        "NT-Xent, wildfern": _Loss(own),
        f"NT-Xent, wildfern, one of {RANKS} ranks": _Loss(lambda z: own(z, rows=slice(z.shape[1] // RANKS))),
        "NT-Xent, matrix of all pairs": _Loss(lambda z: whole_ntxent(z, TEMPERATURE), quadratic=True),
        "NT-Xent, lightly": _Loss(lambda z: theirs(z[0], z[1]), quadratic=True),
        "CACR, one pair of views at a time": _Loss(pairwise_cacr, quadratic=True),
        "CACR, wildfern": _Loss(lambda z: cacr(z).total),
        f"CACR, wildfern, one of {RANKS} ranks": _Loss(lambda z: cacr(z, rows=slice(z.shape[1] // RANKS)).total),
    }
    rows: list[dict] = []
    last: dict[str, tuple[float, float]] = {}  # seconds and bytes of a step, measured or expected
    before = None
    for images in sizes or SIZES:
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(VIEWS, images, DIMENSIONS, generator=generator).to(device)
        z = F.normalize(z, dim=-1).requires_grad_()
        growth, case = images / (before or images), f"{VIEWS} × {images} images"
        skipped, steps, peaks = {}, {}, {}
        for what, one in losses.items():
            took, size = last.get(what, (0.0, 0.0))
            last[what] = took * growth**2, size * growth ** (1 + one.quadratic)
            took, size = last[what]
            if size > free_bytes(device):
                skipped[what] = f"about {size / 1e9:.2g} GB, {free_bytes(device) / 1e9:.2g} GB are free"
            elif took > MOST_STEPS * seconds:
                skipped[what] = f"about {took:.2g} s for a step"
            else:
                steps[what] = _step(one.loss, z, device)
                peaks[what] = peak_bytes(steps[what], device)
        slow = any(last[what][0] > seconds for what in steps)
        # the step of `peak_bytes` has warmed up
        measured = compare(case, 1, steps, seconds, rounds=1 if slow else None, warm_up=not slow) if steps else []
        for row in measured:
            last[row["what"]] = 1 / row["rate"], peaks[row["what"]]
        found = {row["what"]: {**row, "peak_bytes": peaks[row["what"]]} for row in measured}
        found |= {
            what: {"case": case, "what": what, "rate": None, "ratio": None, "skipped": reason}
            for what, reason in skipped.items()
        }
        rows += [found[what] for what in losses]
        before = images
    return rows


def whole_ntxent(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent of float[V, N, D] with the matrix of all (V·N)² logits, and autograd's gradient."""
    views, images, _ = z.shape
    flat = z.flatten(0, 1)
    logits = flat @ flat.T / temperature
    logits.fill_diagonal_(-torch.inf)
    image = torch.arange(len(flat), device=z.device) % images
    same = (image[:, None] == image[None, :]).fill_diagonal_(False)
    positive = torch.where(same, logits, 0.0).sum(dim=1) / (views - 1)
    return (logits.logsumexp(dim=1) - positive).mean()


def pairwise_cacr(z: Tensor) -> Tensor:
    """CACR's pairwise form by a loop over views and pairs of views, with autograd's gradient."""
    views, images, _ = z.shape
    attraction = z.new_zeros(())
    repulsion = z.new_zeros(())
    itself = torch.eye(images, dtype=torch.bool, device=z.device)
    for x in range(views):
        positive = torch.stack([(z[x] - z[k]).square().sum(-1) for k in range(views) if k != x])
        attraction = attraction + (positive.softmax(0) * positive).sum(0).mean()
        for y in range(x + 1, views):
            negative = z[x].square().sum(-1)[:, None] + z[y].square().sum(-1) - 2 * z[x] @ z[y].T
            weights = (-negative).masked_fill(itself, -torch.inf).softmax(-1)
            repulsion = repulsion + (weights * negative).sum(-1).mean()
    return attraction / views - repulsion / (views * (views - 1) / 2)


def _step(loss: Callable[[Tensor], Tensor], z: Tensor, device: torch.device) -> Callable[[], None]:
    def step() -> None:
        loss(z).backward()
        z.grad = None  # released within the step that made it, so that each is measured alike
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
