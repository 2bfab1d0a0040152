"""Every loss that compares images with each other or with a queue: with its inputs, and as it was with whole matrices."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from wildfern.ssl.losses import (
    CACRLoss,
    MomentumCACRLoss,
    NTXentLoss,
    QueueCACRLoss,
    info_nce,
    koleo_loss,
    queue_info_nce,
)
from wildfern.ssl.losses.seed import seed_loss


def unit(*shape, seed=0, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)), dim=-1)


@dataclass(frozen=True)
class LossCase:
    """A loss and its inputs for N images and L rows of a queue: "VND", "ND" and "LD" are their shapes.

    trained: how many of the inputs, from the first, get a gradient.
    exact: whether the gradient is the derivative of the value, as no weights are constant.
    """

    loss: Callable[..., Tensor]  # (*inputs, rows=)
    shapes: tuple[str, ...]
    trained: int
    exact: bool = True

    def inputs(self, views=3, images=7, queue=5, dim=4, dtype=torch.float64):
        sizes = {"V": views, "N": images, "L": queue, "D": dim}
        made = [unit(*(sizes[s] for s in shape), seed=n, dtype=dtype) for n, shape in enumerate(self.shapes)]
        return [x.requires_grad_(n < self.trained) for n, x in enumerate(made)]


def cacr(views, rows=None, sum_over_parts=None, **settings):
    return CACRLoss(**settings)(views, rows=rows, sum_over_parts=sum_over_parts).total


def rbf(views, rows=None, **settings):
    """The potentials of all images are those of three parts, as of three ranks."""
    loss, n = CACRLoss(cost="rbf", **settings), views.shape[1]
    if rows is None:
        return loss(views).total
    whole = []
    for part in (slice(0, 3), slice(3, 3), slice(3, n)):
        loss(views.detach(), rows=part, sum_over_parts=lambda x: whole.append(x) or x)
    return loss(views, rows=rows, sum_over_parts=lambda x: torch.stack(whole).sum(dim=0)).total


def queue_cacr(*inputs, rows=None, **settings):
    return QueueCACRLoss(1.5, 0.5, 1.3, **settings)(*inputs, rows=rows).total


CASES = {
    "NT-Xent": LossCase(NTXentLoss(0.3), ("VND",), 1),
    "InfoNCE": LossCase(partial(info_nce, temperature=0.3), ("ND", "ND"), 2),
    "InfoNCE with a queue": LossCase(partial(queue_info_nce, temperature=0.3), ("ND", "ND", "LD"), 3),
    "CACR": LossCase(partial(cacr, tau_neg=0.7), ("VND",), 1),
    "CACR, maximum of a softmax": LossCase(partial(cacr, tau_neg=25.0), ("VND",), 1),
    "CACR, uniform": LossCase(partial(cacr, tau_neg=0.0), ("VND",), 1),
    "CACR, debiased": LossCase(partial(cacr, debias=0.2), ("VND",), 1),
    "CACR, constant weights": LossCase(partial(cacr, detach_weights=True), ("VND",), 1, exact=False),
    "CACR, RBF": LossCase(rbf, ("VND",), 1),
    "CACR, RBF, maximum of a softmax": LossCase(partial(rbf, tau_neg=25.0, rbf_scale=0.7), ("VND",), 1),
    "CACR, RBF, uniform": LossCase(partial(rbf, tau_neg=0.0), ("VND",), 1),
    "CACR, RBF, constant weights": LossCase(partial(rbf, detach_weights=True), ("VND",), 1, exact=False),
    "momentum CACR": LossCase(MomentumCACRLoss(0.5), ("VND", "ND"), 1, exact=False),
    "momentum CACR, small temperature": LossCase(MomentumCACRLoss(0.02), ("VND", "ND"), 1, exact=False),
    "momentum CACR, euclidean": LossCase(MomentumCACRLoss(0.5, "euclidean"), ("VND", "ND"), 1, exact=False),
    "queue CACR": LossCase(partial(queue_cacr, tau_neg=2.0), ("VND", "VND", "LD"), 1, exact=False),
    "queue CACR, uniform": LossCase(partial(queue_cacr, tau_neg=0.0), ("VND", "VND", "LD"), 1, exact=False),
    "queue CACR, queue alone": LossCase(partial(queue_cacr, within_batch=False), ("VND", "VND", "LD"), 1, exact=False),
    "SEED": LossCase(partial(seed_loss, teacher_temperature=0.1), ("ND", "ND", "LD"), 1),
    "KoLeo": LossCase(koleo_loss, ("ND",), 1),
}


def whole_ntxent(z, temperature):
    """NT-Xent with the matrix of all logits, for autograd."""
    flat, (views, images, _) = z.flatten(0, 1), z.shape
    logits = flat @ flat.T / temperature
    logits.fill_diagonal_(-torch.inf)
    image = torch.arange(len(flat)) % images
    same = (image[:, None] == image[None, :]).fill_diagonal_(False)
    positive = torch.where(same, logits, 0.0).sum(dim=1) / (views - 1)
    return (logits.logsumexp(dim=1) - positive).mean()


def whole_info_nce(queries, keys, temperature):
    return F.cross_entropy(queries @ keys.T / temperature, torch.arange(len(keys)))


def whole_queue_info_nce(queries, keys, queue, temperature):
    logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))


def whole_rbf(z, rbf_scale=2.0):
    """The repulsion of CACR's RBF cost with the distances of all pairs, for autograd."""
    found = []
    for x in range(len(z)):
        for y in range(x + 1, len(z)):
            d = z[x].square().sum(dim=1)[:, None] + z[y].square().sum(dim=1) - 2 * z[x] @ z[y].T
            d = d.masked_fill(torch.eye(len(d), dtype=torch.bool), torch.inf)
            found.append(((-d).softmax(dim=1) * (-rbf_scale * d).exp()).sum(dim=1).mean().log())
    return torch.stack(found).mean()
