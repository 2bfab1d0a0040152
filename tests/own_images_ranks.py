"""The comparison of a batch by several ranks, each with the queries of its own images; used by `test_own_images`."""

from types import SimpleNamespace

import torch
from method_cases import CASES, batch, build

from wildfern.ssl.methods.comparing import compares_whole_batch
from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.training.accumulation import _compare

# Methods with a comparison of all images with all, or with a queue.
COMPARED = [
    *["simclr", "cacr", "cacr rbf", "cacr debiased", "cacr_momentum", "cacr_momentum full", "cacr_queue", "moco_v2"],
    *["moco_v2 symmetric", "moco_v3", "nnclr", "dinov2", "distillation of similarities"],
]
UNEVEN, EVEN, PARTS = 7, 6, 2


def prepared(case):
    """The method, and embeddings with gradient and targets of all images of a batch, by name."""
    method, images = build(case, 10), batch(case, 0)
    assert compares_whole_batch(method)
    with torch.no_grad():
        targets = method.checked_targets(images)
        method.prepare(0)
        embeddings = method.checked_embed(images).embeddings
    return method, embeddings, targets


def leaves(embeddings, images):
    return {name: x[:, images].clone().requires_grad_() for name, x in embeddings.items()}


def compared(case, images=UNEVEN):
    """Means over ranks of loss, metrics and gradients of the first images, which every rank has whole; and the queue after it."""
    method, embeddings, targets = prepared(case)
    own = leaves(embeddings, slice(images))
    output = method.checked_compare(own | {name: x[:, :images] for name, x in targets.items()}, 0)
    output.loss.backward()
    found = {"loss": output.loss.detach(), **output.metrics}
    found |= {f"gradient of {name}": torch.zeros_like(x) if x.grad is None else x.grad for name, x in own.items()}
    queue = getattr(method, "queue", None)
    return {name: mean_over_ranks(value) for name, value in found.items()} | (
        {} if queue is None else {"queue": queue.embeddings.clone()}
    )


def accumulated(case, rank, world_size):
    """Mean over ranks of the loss, and this rank's gradients as an engine averages them: by its images' places in the batch."""
    method, embeddings, targets = prepared(case)
    size = EVEN // (PARTS * world_size)
    places = [slice(first, first + size) for first in range(rank * size, EVEN, world_size * size)]
    own = [leaves(embeddings, place) for place in places]
    others = [{name: x[:, place] for name, x in targets.items()} for place in places]
    engine = SimpleNamespace(method=method, device=torch.device("cpu"), precision="fp32")
    output, gradients = _compare(engine, own, others, 0)
    found = {"loss": mean_over_ranks(output.loss)}
    for place, by_name in zip(places, gradients, strict=True):
        found |= {f"{name} of {place.start} to {place.stop}": x / world_size for name, x in by_name.items()}
    return found


def worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    assert set(COMPARED) <= set(CASES)
    found = {case: compared(case) for case in COMPARED}
    found |= {f"{case}, accumulated": accumulated(case, rank, world_size) for case in COMPARED}
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
