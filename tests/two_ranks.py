"""Run by `test_two_processes`: one step of every method on each rank's part of the images."""

from contextlib import ExitStack
from unittest import mock

import torch
from plain_methods import PLAIN
from torch import nn

from wildfern.ssl.methods import METHODS, Batch, comparing, dino
from wildfern.ssl.methods.gather import all_gather_embeddings, mean_over_ranks
from wildfern.ssl.models import synchronize_batch_norm

IMAGES = 8
ARGUMENTS = {
    "simclr": {"projection_hidden": 16, "projection_size": 8},
    "cacr": {"projection_size": 8},
    "cacr_momentum": {"projection_hidden": 16, "projection_size": 8, "temperature": 0.5},
    "dino": {"prototypes": 12, "head_hidden": 16, "head_bottleneck": 8, "head_batch_norm": True},
}
ARGUMENTS["cacr_momentum euclidean"] = {**ARGUMENTS["cacr_momentum"], "cost": "euclidean"}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class SmallNet(nn.Module):
    """A convolution, batch normalization and pooling: a minimal backbone."""

    width = 6

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x):
        return self.norm(self.convolution(x)).relu().mean(dim=(2, 3))


def build(name, dtype):
    """The method, its teachers, and views of all images; with local crops if the method distinguishes views."""
    torch.manual_seed(0)
    method = METHODS[name.split()[0]](SmallNet(), 10, **ARGUMENTS[name]).to(dtype)
    teachers = {key: teacher.to(dtype) for key, teacher in method.teachers().items()}
    groups = [torch.randn(4 if name == "cacr" else 2, IMAGES, 3, 8, 8, dtype=torch.float64)]
    if teachers:
        groups.append(torch.randn(3, IMAGES, 3, 4, 4, dtype=torch.float64))
    return method, teachers, [group.to(dtype) for group in groups]


def outcome(method, loss):
    """Loss, gradients, batch statistics and center after `loss.backward()`, averaged over ranks if they differ."""
    loss.backward()
    found = {"loss": mean_over_ranks(loss.detach())}
    found |= {f"gradient of {n}": mean_over_ranks(p.grad) for n, p in method.named_parameters() if p.grad is not None}
    return found | {n: b for n, b in method.named_buffers() if "running" in n or n.endswith("center")}


def plain_step(name, dtype):
    """The step in one process, by the plain formula and torch's own batch normalization."""
    method, teachers, groups = build(name, dtype)
    return outcome(method, PLAIN[name](method, teachers, groups))


def step(name, dtype, rank, world_size, synchronize=synchronize_batch_norm):
    """The step on this rank's images, as in training."""
    method, teachers, groups = build(name, dtype)
    if world_size > 1:
        for module in (method, *teachers.values()):
            synchronize(module)
    share = IMAGES // world_size
    views = [g[:, rank * share : (rank + 1) * share] for g in groups]
    return outcome(method, method(Batch.from_views(views, step=3)).loss)


def own_gradient_only(views):
    """Gathered without gradient, this rank's part put back in: what other ranks' losses pull at is missing."""
    parts = [torch.empty_like(views) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, views.detach().contiguous())
    parts[torch.distributed.get_rank()] = views
    return torch.cat(parts, dim=1)


def gradient_summed(views):
    """Gathered with the gradient of the sum over ranks where their mean is meant: too large by the number of ranks."""
    gathered = all_gather_embeddings(views)
    if gathered.requires_grad:
        gathered.register_hook(lambda gradient: gradient * torch.distributed.get_world_size())
    return gathered


# Errors that no single process would detect: (methods concerned, how to produce them).
GATHERING = ["simclr", "cacr", "cacr_momentum"]
ERRORS = {
    "only the own part is gathered": (GATHERING, {"all_gather_embeddings": lambda views: views}),
    # Not of cacr_momentum, whose loss on one rank needs gradients of its own queries alone.
    "gathered without gradient": (["simclr", "cacr"], {"all_gather_embeddings": own_gradient_only}),
    "gradients off by the world size": (GATHERING, {"all_gather_embeddings": gradient_summed}),
    "the center is this rank's own": (["dino"], {"mean_over_ranks": lambda x: x}),
    "batch normalization is local": (list(ARGUMENTS), {}),
}


def wrong_step(error, name, rank, world_size):
    """The step with one of `ERRORS` in it."""
    replaced = ERRORS[error][1]
    module = comparing if "all_gather_embeddings" in replaced else dino
    patches = [mock.patch.object(module, key, value) for key, value in replaced.items()]
    synchronize = synchronize_batch_norm if patches else lambda module: None
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        return step(name, torch.float64, rank, world_size, synchronize)


def worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    found = {f"{name} {kind}": step(name, DTYPES[kind], rank, world_size) for name in ARGUMENTS for kind in DTYPES}
    found |= {
        f"{error}: {name}": wrong_step(error, name, rank, world_size)
        for error, (names, _) in ERRORS.items()
        for name in names
    }
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
