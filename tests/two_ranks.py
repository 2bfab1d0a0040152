"""One step of every method on a share of the pictures: what the processes of `test_two_processes` run."""

import torch
from torch import nn

from wildfern.ssl.methods import METHODS
from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.models import synchronize_batch_norm

PICTURES = 8
ARGUMENTS = {
    "simclr": {"projection_hidden": 16, "projection_size": 8},
    "cacr": {"projection_size": 8},
    "cacr_momentum": {"projection_hidden": 16, "projection_size": 8, "temperature": 0.5},
    "dino": {"prototypes": 12, "head_hidden": 16, "head_bottleneck": 8, "head_batch_norm": True},
}


class SmallNet(nn.Module):
    """A convolution, batch normalization, pooling: all that the methods ask of a backbone."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x):
        return self.norm(self.convolution(x)).relu().mean(dim=(2, 3))


def step(name, rank, world_size):
    """Loss, gradients, batch statistics and center of one step on this rank's pictures, averaged over ranks."""
    torch.manual_seed(0)
    method = METHODS[name](SmallNet(), 10, **ARGUMENTS[name]).double()
    for teacher in method.teachers().values():
        teacher.double()
    if world_size > 1:
        for module in (method, *method.teachers().values()):
            synchronize_batch_norm(module)
    groups = [torch.randn(2, PICTURES, 3, 8, 8, dtype=torch.float64)]
    if name in ("dino", "cacr_momentum"):
        groups.append(torch.randn(3, PICTURES, 3, 4, 4, dtype=torch.float64))
    share = PICTURES // world_size
    mine = [g[:, rank * share : (rank + 1) * share] for g in groups]
    loss, _ = method(mine, 3)
    loss.backward()
    found = {"loss": mean_over_ranks(loss.detach())}
    found |= {f"gradient of {n}": mean_over_ranks(p.grad) for n, p in method.named_parameters() if p.grad is not None}
    found |= {n: b.double() for n, b in method.named_buffers() if "running" in n or n.endswith("center")}
    return found


def worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    found = {name: step(name, rank, world_size) for name in METHODS}
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
