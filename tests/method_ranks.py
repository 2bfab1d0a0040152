"""Three steps of methods that use labels, masks, a queue or random numbers, on one rank's part of the global batch."""

from pathlib import Path

import torch

from wildfern.registry import load_plugin
from wildfern.ssl.methods import METHODS, Batch
from wildfern.ssl.methods.gather import mean_over_ranks
from wildfern.ssl.models import Backbone, synchronize_batch_norm

IMAGES, STEPS, CLASSES = 8, 3, 5
PLUGINS = Path(__file__).parent / "plugins"
VIT = ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 2})
RESNET = ("resnet18", {"stem": "cifar", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]})
# name -> (method, backbone, arguments)
CASES = {
    "mae": ("mae", VIT, {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}),
    "one label": ("supervised", RESNET, {"classes": CLASSES}),
    "several labels": ("supervised", RESNET, {"classes": CLASSES}),
    "queue": ("queue_contrast", RESNET, {"length": 12}),
    "masks": ("toy_segmentation", RESNET, {"channels": 8}),
}


def load(name):
    """Load the plugin of `tests/plugins` that registers this method, unless it is registered."""
    if name not in METHODS:
        load_plugin(PLUGINS / f"{name}.py")


def global_batch(case, step):
    """Views, labels and masks of all images of a step, in float64."""
    generator = torch.Generator().manual_seed(step)
    views = torch.randn(2, IMAGES, 3, 16, 16, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, 2, (2, IMAGES, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(-1, CLASSES, (IMAGES,), generator=generator)
    if case == "several labels":
        labels = torch.randint(0, 2, (IMAGES, CLASSES), generator=generator, dtype=torch.uint8)
    return views, labels, masks


def train(case, rank=0, world_size=1, share_seeds=True):
    """float64[STEPS] losses of the global batch, and all weights and buffers at the end."""
    for plugin in ("queue_contrast", "toy_segmentation"):
        load(plugin)
    name, (backbone, arguments), own = CASES[case]
    torch.manual_seed(0)
    method = METHODS[name](Backbone(backbone, **arguments), STEPS, **own).double()
    for teacher in method.teachers().values():
        teacher.double()
    if world_size > 1:
        for module in (method, *method.teachers().values()):
            synchronize_batch_norm(module)
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    share, losses = IMAGES // world_size, []
    mine = slice(rank * share, (rank + 1) * share)
    for step in range(STEPS):
        views, labels, masks = global_batch(case, step)
        batch = Batch.from_views(
            [views[:, mine]],
            labels=labels[mine],
            masks=[masks[:, mine]],
            step=step,
            positions=torch.arange(IMAGES)[mine] if share_seeds else None,
        )
        method.needs.check_batch(batch)
        optimizer.zero_grad()
        loss = method(batch).loss
        loss.backward()
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.grad = mean_over_ranks(parameter.grad)
        optimizer.step()
        method.after_step(step)
        losses.append(mean_over_ranks(loss.detach()))
    return torch.stack(losses), method.state_dict()


def worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    found = {case: train(case, rank, world_size) for case in CASES}
    found["mae, wrong positions"] = train("mae", rank, world_size, share_seeds=False)
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
