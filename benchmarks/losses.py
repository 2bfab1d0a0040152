"""Forward and backward passes per second of the losses, against lightly's and against plain forms of CACR."""

from collections.abc import Callable

import torch
from lightly.loss import DINOLoss as LightlyDINOLoss
from lightly.loss import NTXentLoss as LightlyNTXentLoss
from torch import Tensor
from torch.nn import functional as F

from wildfern.benchmarks.loss_scaling import pairwise_cacr, scaling_rows
from wildfern.benchmarks.result import Benchmark, compare
from wildfern.ssl.losses import CACRLoss, DINOLoss, MomentumCACRLoss, NTXentLoss

IMAGES, DIMENSIONS = 256, 128
CACR_IMAGES, QUERIES = 512, 9
DINO_IMAGES, PROTOTYPES = 64, 4096


def run(seconds: float) -> Benchmark:
    """`IMAGES` or `CACR_IMAGES` images, embeddings of `DIMENSIONS` numbers; DINO with `PROTOTYPES` prototypes and ten views.

    Then time and memory by the number of images, see `loss_scaling`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    two = F.normalize(torch.randn(2, IMAGES, DIMENSIONS, device=device), dim=-1).requires_grad_()
    five = F.normalize(torch.randn(5, IMAGES, DIMENSIONS, device=device), dim=-1).requires_grad_()
    student = torch.randn(10, DINO_IMAGES, PROTOTYPES, device=device, requires_grad=True)
    teacher = torch.randn(2, DINO_IMAGES, PROTOTYPES, device=device)
    many = F.normalize(torch.randn(5, CACR_IMAGES, DIMENSIONS, device=device), dim=-1).requires_grad_()
    queries = torch.randn(QUERIES, CACR_IMAGES, DIMENSIONS, device=device, requires_grad=True)
    keys = torch.randn(CACR_IMAGES, DIMENSIONS, device=device)
    theirs = LightlyNTXentLoss(0.1)
    their_dino, dino = LightlyDINOLoss(PROTOTYPES).to(device), DINOLoss(PROTOTYPES).to(device)
    cases = {
        f"NT-Xent, 2 × {IMAGES}": {
            "lightly": lambda: theirs(two[0], two[1]).backward(),
            "wildfern": lambda: NTXentLoss(0.1)(two).backward(),
        },
        f"CACR, 5 × {IMAGES}": {
            "all pairs at once": lambda: all_pairs_cacr(five).backward(),
            "wildfern": lambda: CACRLoss()(five).total.backward(),
        },
        f"CACR, 5 × {CACR_IMAGES}": {
            "one pair of views at a time": lambda: pairwise_cacr(many).backward(),
            f"lightly's NT-Xent, 2 × {CACR_IMAGES}": lambda: theirs(many[0], many[1]).backward(),
            "wildfern": lambda: CACRLoss()(many).total.backward(),
            "wildfern, cost=rbf": lambda: CACRLoss(cost="rbf")(many).total.backward(),
        },
        f"CACR with a momentum encoder, {QUERIES} × {CACR_IMAGES}": {
            "one query at a time": lambda: momentum_cacr(queries, keys, 0.2).backward(),
            "wildfern": lambda: MomentumCACRLoss(0.2)(queries, keys).backward(),
        },
        f"DINO, 10 × {DINO_IMAGES}, {f'{PROTOTYPES:,}'.replace(',', ' ')} prototypes": {
            "lightly": lambda: their_dino(list(teacher), list(student), epoch=0).backward(),
            "wildfern": lambda: dino(student, teacher, 0.04).backward(),
        },
    }

    def finished(call: Callable[[], object]) -> Callable[[], object]:
        def timed() -> None:
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return timed

    rows = []
    for case, things in cases.items():
        rows += compare(case, 1, {what: finished(call) for what, call in things.items()}, seconds)
    return Benchmark(
        "losses",
        "steps/s",
        f"forward and backward on {device}, float32; peak memory: all that a step allocates",
        rows + scaling_rows(device, seconds),
    )


def all_pairs_cacr(z: Tensor) -> Tensor:
    """CACR's pairwise form with every distance of every pair of views in memory."""
    views, images, _ = z.shape
    distances = (z[:, None, :, None] - z[None, :, None, :]).square().sum(-1)  # [V, V, N, N]
    same = distances.diagonal(dim1=2, dim2=3)  # [V, V, N]
    other = ~torch.eye(views, dtype=torch.bool, device=z.device)
    positive = same[other].view(views, views - 1, images)
    attraction = (positive.softmax(1) * positive).sum(1).mean()
    x, y = torch.triu_indices(views, views, 1)
    negative = distances[x, y].masked_fill(torch.eye(images, dtype=torch.bool, device=z.device), torch.inf)
    weights = (-negative).softmax(-1)
    return attraction - (weights * negative.nan_to_num(posinf=0.0)).sum(-1).mean()


def momentum_cacr(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """CACR's momentum form with the RBF cost by a loop over queries."""
    k, own = F.normalize(keys, dim=-1), torch.arange(len(keys), device=keys.device)
    q = [F.normalize(query, dim=-1) for query in queries]
    with torch.no_grad():
        weights = torch.stack([(one - k).square().sum(-1) / temperature for one in q]).softmax(0)
    costs = [F.cross_entropy(one @ k.T / temperature, own, reduction="none") for one in q]
    return sum((w * c).mean() for w, c in zip(weights, costs, strict=True)) * 2 * temperature
