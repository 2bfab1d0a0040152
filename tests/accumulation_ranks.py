"""Steps of the training loop in several micro-batches, on one rank or several; used by `test_accumulation`."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import method_cases
import numpy as np
import torch
from method_cases import CLASSES, PARAMETERS, load
from torch import nn

from wildfern.generators import ImageBatch
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Loader, Mixture, SyntheticSource
from wildfern.ssl.methods import METHODS
from wildfern.ssl.models import Backbone
from wildfern.ssl.training import OPTIMIZERS, BatchReader, LoopConfig, OnlineProbe, TorchEngine, train_step
from wildfern.ssl.training.finite import FiniteWatch

IMAGES, STEPS = 8, 3
CPU = torch.device("cpu")
CASES = {name: (case.method, case.arguments) for name, case in method_cases.CASES.items() if not case.masks}
# The hardest stage for every method, and the others for a few.
ON_RANKS = [(case, 3) for case in CASES] + [("simclr", stage) for stage in range(3)]
ON_RANKS += [("cacr_momentum", 1), ("queue", 2), ("dino", 2)]


class Noise:
    """A stream of random images."""

    size, num_classes = 20, CLASSES

    def batch(self, indices):
        images = [np.random.Generator(np.random.Philox(key=int(i))).integers(0, 256, (20, 20, 3)) for i in indices]
        return ImageBatch(np.stack(images).astype(np.uint8))


class Reader(BatchReader):
    """Views in the type of the networks, and labels."""

    dtype, several = torch.float64, False

    def batch(self, micro_batch):
        batch = super().batch(micro_batch)
        indices = torch.from_numpy(self.indices(micro_batch.step, micro_batch.part))
        labels = indices * 7 % (CLASSES + 1) - 1
        if self.several:
            labels = ((indices[:, None] >> torch.arange(CLASSES)) % 2).to(torch.uint8)
        parameters = torch.sin(indices[:, None] * torch.arange(1.0, PARAMETERS + 1))
        views = [v.to(self.dtype) for v in batch.views]
        return replace(batch, views=views, labels=labels, items=indices, parameters=parameters)


def build(case, dtype=torch.float64, batch_norm=False, **backbone):
    """The method, by default without batch normalization, whose statistics depend on the parts."""
    name, arguments = CASES[case]
    load(name)
    torch.manual_seed(0)
    network, settings = method_cases.VIT
    method = METHODS[name](Backbone(network, **{**settings, **backbone}), STEPS, **arguments).to(dtype)
    for network in method.networks():
        network.to(dtype)
        for path, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm1d) and not batch_norm:
                network.set_submodule(path, nn.Identity())
    return method


def engine_of(method, accumulation, stage=None, world_size=1, probe=True):
    """Plain torch, or DeepSpeed at this stage."""
    sgd = partial(OPTIMIZERS["sgd"], learning_rate=0.1)
    classifier = OnlineProbe(method.backbone.width, CLASSES, 1e-2, CPU) if probe else None
    common = {"device": CPU, "precision": "fp32", "accumulation": accumulation, "probe": classifier}
    if stage is None:
        return TorchEngine(method, sgd, 0.01, **common)
    from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine

    size = IMAGES // accumulation // world_size
    return DeepSpeedEngine(method, sgd, 0.01, optimizer_name="sgd", micro_batch_size=size, zero_stage=stage, **common)


def reader_of(case, accumulation, dtype=torch.float64, rank=0, world_size=1):
    mixture = Mixture([(SyntheticSource(Noise()), 1.0)], 0)
    parts = {"accumulation": accumulation, "rank": rank, "world_size": world_size}
    reader = Reader(mixture, simclr(size=16), seed=0, batch_size=IMAGES, **parts)
    reader.dtype, reader.several = dtype, case == "several labels"
    return reader


def train(engine, case, accumulation, dtype=torch.float64, steps=STEPS, skip_nonfinite=0):
    """Losses and gradient norms of each step, and the final state: weights, buffers, teachers, probe."""
    reader = reader_of(case, accumulation, dtype, engine.rank, engine.world_size)
    config = LoopConfig(0, STEPS, IMAGES, accumulation, 0.1, 0.01, 0, True, 1, None, None, skip_nonfinite)
    constant = SimpleNamespace(learning_rate=lambda step: 1.0, weight_decay=lambda step: 1.0)
    watch, numbers = FiniteWatch(engine, skip_nonfinite, reader.indices), []
    with Loader(reader, 0, steps * accumulation, 0) as loader:
        for step in range(steps):
            result = train_step(step, config, engine, reader, loader, constant, watch)
            found = engine.mean({"loss": result.means()["loss"], "gradient_norm": result.gradient_norm})
            numbers.append(list(found.values()))
    return {"numbers": torch.tensor(numbers, dtype=torch.float64), **engine.snapshot()}


def worker(rank, world_size, port, folder):
    """Every case of `ON_RANKS` in two parts, with results in `folder/rankN.pt`."""
    from wildfern.ssl.models import sharded_module
    from wildfern.ssl.training.deepspeed_engine import start_processes

    sharded_module.KEPT_WHOLE = 0  # so that the small teachers here are sharded at stage 3
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    start_processes("cpu", 3)
    found = {}
    for case, stage in ON_RANKS:
        engine = engine_of(build(case, torch.float32), 2, stage, world_size, probe=case != "several labels")
        found[f"{case} zero{stage}"] = train(engine, case, 2, torch.float32)
        engine.engine.destroy()
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
