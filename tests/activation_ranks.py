"""Steps of training with and without activation checkpointing, on one rank or two; used by `test_activation_checkpointing`."""

import os
from pathlib import Path

import torch
from accumulation_ranks import CASES, STEPS, engine_of, train
from torch import nn

from wildfern.ssl.methods import METHODS
from wildfern.ssl.models import Backbone

RESNET = ("resnet18", {"stem": "cifar", "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "drop_path_rate": 0.3})
VIT = (
    "vit_tiny_patch16_224",
    {"img_size": 16, "patch_size": 4, "depth": 3, "embed_dim": 16, "num_heads": 2, "drop_path_rate": 0.5},
)
NETWORKS = {"resnet": RESNET, "vit": VIT}
ON_RANKS = [("resnet", 2, 2), ("resnet", 3, 1), ("vit", 3, 2)]  # network, ZeRO stage, micro-batches


def build(network: str, recomputes: bool, dtype: torch.dtype = torch.float32) -> nn.Module:
    """SimCLR on this network."""
    torch.manual_seed(0)
    name, arguments = NETWORKS[network]
    method = METHODS["simclr"](Backbone(name, **arguments), STEPS, **CASES["simclr"][1]).to(dtype)
    if recomputes:
        method.backbone.checkpoint_activations()
    return method


def worker(rank, world_size, port, folder):
    """The results of `train` of every case of `ON_RANKS`, without and with checkpointing, in `folder/rankN.pt`."""
    from wildfern.ssl.training.deepspeed_engine import start_processes

    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    start_processes("cpu", 3)
    found = {}
    for network, stage, parts in ON_RANKS:
        for recomputes in (False, True):
            engine = engine_of(build(network, recomputes), parts, stage, world_size, probe=False)
            found[f"{network} zero{stage} {recomputes}"] = train(engine, "simclr", parts, torch.float32)
            engine.engine.destroy()
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
