"""Three steps of every method on one rank's part of the global batch."""

import torch
from method_cases import CASES, batch, build

from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.models import synchronize_batch_norm

STEPS = 3


def train(case, rank=0, world_size=1, share_seeds=True):
    """float64[STEPS] losses of the global batch, and all weights and buffers at the end, those of teachers too."""
    method = build(case, STEPS)
    if world_size > 1:
        for module in (method, *method.teachers().values()):
            synchronize_batch_norm(module)
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    losses = []
    for step in range(STEPS):
        part = batch(case, step, rank, world_size, share_seeds=share_seeds)
        method.needs.check_batch(part)
        optimizer.zero_grad()
        loss = method(part).loss
        loss.backward()
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.grad = mean_over_ranks(parameter.grad)
        optimizer.step()
        method.after_step(step)
        losses.append(mean_over_ranks(loss.detach()))
    state = dict(method.state_dict())
    for name, teacher in method.teachers().items():
        state |= {f"{name}/{key}": value for key, value in teacher.state_dict().items()}
    return torch.stack(losses), state


def worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    found = {case: train(case, rank, world_size) for case in CASES}
    found["mae, wrong positions"] = train("mae", rank, world_size, share_seeds=False)
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
