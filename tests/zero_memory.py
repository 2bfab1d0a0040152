"""Run by `test_estimate`: measures the memory of two processes that train under a ZeRO stage."""

import json
import os
import time
from functools import partial

import torch
from torch import nn

from wildfern.ssl.methods import Batch, Method, Output
from wildfern.ssl.training import OPTIMIZERS

ADAMW = partial(OPTIMIZERS["adamw"], learning_rate=1e-4)
IMAGES, SIDE = 4, 8
STEPS = 3


class Wide(Method):
    """Layers of 1024: 25 million weights, and negligible activations."""

    def __init__(self):
        super().__init__()
        layers = [nn.Linear(3 * SIDE * SIDE, 1024), *(nn.Linear(1024, 1024) for _ in range(23))]
        self.backbone = nn.Sequential(nn.Flatten(), *(part for layer in layers for part in (layer, nn.ReLU())))

    def forward(self, batch):
        return Output(self.backbone(batch.views[0].flatten(0, 1)).square().mean())


def step_under(stage, rank, port, folder):
    """Write the peak bytes of the steps after the first, weights included, to `folder`."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()})
    from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine, start_processes

    torch.set_num_threads(1)
    start_processes("cpu", 2.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        arguments = {"optimizer_name": "adamw", "device": torch.device("cpu"), "precision": "fp32"}
        engine = DeepSpeedEngine(Wide(), ADAMW, 0.0, micro_batch_size=IMAGES, zero_stage=stage, **arguments)
        for step in range(STEPS):
            if step == 1:
                begin = time.time_ns()
            loss = engine(Batch.from_views([torch.zeros(2, IMAGES, 3, SIDE, SIDE)], step=step)).loss
            engine.backward(loss)
            engine.step(1e-6, 0.0)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now) if event.start_ns() >= begin else peak
    (folder / f"{stage}-{rank}.json").write_text(json.dumps(peak))
    os._exit(0)
