"""Run by `test_sharded_module`: a network whole and sharded over two ranks, and a moving average of it."""

import os

import torch
from torch import nn

from wildfern.ssl.models import sharded_module
from wildfern.ssl.models.sharded_module import gathered, part_of, shard
from wildfern.ssl.models.teacher import MomentumTeacher


class WithOwnWeight(nn.Module):
    """Layers of several sizes, one with a parametrization, and a weight and a child's weight that it uses itself."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(7))
        self.layers = nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.Linear(9, 7))
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(7, 5, bias=False))

    def forward(self, x):
        return self.last(self.layers(x) * self.scale)


def released(teacher, kept):
    """Whether the sharded weights are released, and only those."""
    weights = list(teacher.module.parameters())
    return all(weight.numel() == 0 if part_of(weight) else 0 < weight.numel() <= kept for weight in weights)


def worker(rank, world_size, folder):
    """Save what each rank sees to `folder/rankN.pt`."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world_size)
    found = {}
    for unit in (0, 8):  # all weights are sharded; those of at most 8 elements are whole
        sharded_module.KEPT_WHOLE = unit
        torch.manual_seed(0)
        student = WithOwnWeight()
        whole, teacher = MomentumTeacher(student), MomentumTeacher(student)
        shard(teacher.module, rank, world_size)
        inputs = torch.randn(4, 7)
        found[f"{unit} output"] = torch.equal(teacher(inputs), whole(inputs))
        found[f"{unit} released"] = released(teacher, unit)
        total = sum(weight.numel() for weight in student.parameters())
        parts = [part_of(weight) for weight in teacher.module.parameters()]
        found[f"{unit} share"] = sum(part.padded.numel() for part in parts if part is not None) / total
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(torch.randn_like(weight))
        for momentum in (0.9, 0.5):
            whole.update(student, momentum)
            teacher.update(student, momentum, gathered)
        found[f"{unit} update"] = torch.equal(teacher(inputs), whole(inputs))
        with gathered(teacher.module.parameters()):
            pairs = zip(teacher.module.parameters(), whole.module.parameters(), strict=True)
            found[f"{unit} gathered"] = all(torch.equal(one, other) for one, other in pairs)
        try:
            teacher(torch.randn(4, 8))
        except RuntimeError:
            found[f"{unit} released after an error"] = released(teacher, unit)
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
