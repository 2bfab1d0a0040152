"""Run by `test_estimate`: measures the memory of two processes that train under a ZeRO stage."""

import json
import os
import time
from bisect import bisect_right
from functools import partial

import torch
from torch import nn

from wildfern.ssl.methods import Batch, Method, Output
from wildfern.ssl.training import OPTIMIZERS

ADAMW = partial(OPTIMIZERS["adamw"], learning_rate=1e-4)
IMAGES, SIDE = 4, 8
STEPS = 6


class Wide(Method):
    """Layers of 1024: 25 million weights, and negligible activations."""

    def __init__(self):
        super().__init__()
        layers = [nn.Linear(3 * SIDE * SIDE, 1024), *(nn.Linear(1024, 1024) for _ in range(23))]
        self.backbone = nn.Sequential(nn.Flatten(), *(part for layer in layers for part in (layer, nn.ReLU())))

    def forward(self, batch):
        return Output(self.backbone(batch.views[0].flatten(0, 1)).square().mean())


def step_under(stage, rank, port, folder):
    """Write the peak bytes of the step with the lowest peak, without the first step and weights included, to `folder`.

    On a busy machine parameters are gathered early and freed late in some of the steps.
    """
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()})
    from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine, start_processes

    torch.set_num_threads(1)
    start_processes("cpu", 2.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        arguments = {"optimizer_name": "adamw", "device": torch.device("cpu"), "precision": "fp32"}
        engine = DeepSpeedEngine(Wide(), ADAMW, 0.0, micro_batch_size=IMAGES, zero_stage=stage, **arguments)
        begins = []
        for step in range(STEPS):
            begins.append(time.time_ns())
            loss = engine(Batch.from_views([torch.zeros(2, IMAGES, 3, SIDE, SIDE)], step=step)).loss
            engine.backward(loss)
            engine.step(1e-6, 0.0)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now, peaks = 0, [0] * STEPS
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        step = bisect_right(begins, event.start_ns()) - 1
        if step >= 0:
            peaks[step] = max(peaks[step], now)
    (folder / f"{stage}-{rank}.json").write_text(json.dumps(min(peaks[1:])))
    os._exit(0)
