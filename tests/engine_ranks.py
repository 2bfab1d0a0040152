"""Run by `test_engines_agree`: the same small training under every engine, stage and number of processes."""

import os
import time
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import nn
from two_ranks import ARGUMENTS, SmallNet

from wildfern.ssl.methods import METHODS, Batch, ParameterGroup, SimCLR
from wildfern.ssl.training import OPTIMIZERS, OnlineProbe, TorchEngine
from wildfern.ssl.training.finite import restore_buffers, snapshot_buffers
from wildfern.ssl.training.sharded_state import write_shard
from wildfern.ssl.training.state_file import open_state
from wildfern.ssl.training.whole_state import write

BATCH, STEPS, CLASSES = 16, 30, 3
SHORT = 12  # steps of the cases that differ from the long ones in optimizer or precision only
CPU = torch.device("cpu")


class CountingSGD(torch.optim.SGD):
    """SGD whose learning rate decreases with a step count in its parameter groups, which the first step creates."""

    def step(self, closure=None):
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["count"] = group.get("count", torch.tensor(0.0)) + 1
            group["lr"] /= float(group["count"]) ** 0.5
        super().step()
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


class WithOwnOptimizers(SimCLR):
    """SimCLR whose projection trains with Adam, and a layer without gradient with AdamW; the recipe's optimizer has the rest."""

    def parameter_groups(self):
        def named(start):
            return [(name, p) for name, p in self.named_parameters() if name.startswith(start)]

        adam = {"optimizer": "adam", "rate": 1e-3, "weight_decay": 0.0, "options": {"betas": (0.9, 0.99)}}
        adamw = {"optimizer": "adamw", "rate": 1e-4, "constant_rate": True}
        rest = ParameterGroup(named("backbone."))
        return [ParameterGroup(named("projection."), **adam), rest, ParameterGroup(named("idle."), **adamw)]


METHODS = {**METHODS, "own": WithOwnOptimizers}
ARGUMENTS = {**ARGUMENTS, "own": ARGUMENTS["simclr"]}
ONE_SIZE = ("simclr", "own")  # methods for views of one size
MAKERS = {**OPTIMIZERS, "counting": lambda groups, learning_rate: CountingSGD(groups, learning_rate, momentum=0.9)}
# Low enough that another last bit of each weight at the start changes no loss by more than 4e-6 of it.
LEARNING_RATE = {"adamw": 3e-4, "sgd": 5e-3, "lars": 1e-1, "lamb": 1e-3, "counting": 1e-2}
# name -> (method, optimizer, precision, stages)
CASES = {
    "simclr-sgd": ("simclr", "sgd", "fp32", (0, 1, 2, 3)),
    "own-sgd": ("own", "sgd", "fp32", (0, 1, 2, 3)),  # and Adam and AdamW, of parameter groups
    "dino-adamw": ("dino", "adamw", "fp32", (0, 1, 2, 3)),
    "cacr_momentum-lars": ("cacr_momentum", "lars", "fp32", (0,)),
    "simclr-lamb": ("simclr", "lamb", "fp32", (0,)),
    "simclr-bf16": ("simclr", "adamw", "bf16", (0, 1, 2, 3)),
    # Refused at stage 3, where DeepSpeed calls step once for each group of weights: the count would run too fast.
    "simclr-counting": ("simclr", "counting", "fp32", (0, 1, 2)),
}
LONG = ("simclr-sgd", "own-sgd", "dino-adamw")
FREEZE = {
    "simclr-counting": 3,
    "simclr-lamb": 3,
    "simclr-bf16": 3,
}  # steps in which the backbone's weights do not change
RESUMED = [(case, stage) for case in ("dino-adamw", "own-sgd", "simclr-counting") for stage in CASES[case][-1]]
HANDED_OVER = ("dino-adamw", "own-sgd")
# Such a run, which several engines continue: (processes, stage (None: the torch engine), first step).
HANDOVERS = [(2, 1, 0), (1, 2, 6), (2, 3, 12), (2, 0, 18), (1, None, 22), (2, 2, 26), (0, None, STEPS)]


def steps_of(case):
    """The number of steps for which engines are compared."""
    return STEPS if case in LONG else SHORT


def build(case, stage, rank=0, world_size=1, probe=True):
    """An engine for a case; stage None is the torch engine."""
    name, optimizer, precision, _ = CASES[case]
    torch.manual_seed(0)
    method = METHODS[name](SmallNet(), STEPS, **ARGUMENTS[name])
    method.idle = nn.Linear(3, 3)  # not reached by the loss
    method.freeze = FREEZE.get(case, 0)
    classifier = OnlineProbe(SmallNet.width, CLASSES, 1e-2, CPU) if probe else None

    def make(groups):
        return MAKERS[optimizer](groups, learning_rate=LEARNING_RATE[optimizer])

    common = {"device": CPU, "precision": precision, "probe": classifier, "gradient_clip": 2.0, "skip_nonfinite": True}
    if stage is None:
        return TorchEngine(method, make, 0.01, **common)
    from wildfern.ssl.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(
        method, make, 0.01, optimizer_name=optimizer, micro_batch_size=BATCH // world_size, zero_stage=stage, **common
    )


def batch(step, rank, world_size):
    """This rank's part of the global batch, one of three: similar views, with labels that can be learned from them."""
    generator = torch.Generator().manual_seed(step % 3)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    image = torch.randn(BATCH, 3, generator=generator) + 0.5 * torch.nn.functional.one_hot(labels, 3)
    groups = [0.5 * torch.randn(2, BATCH, 3, size, size, generator=generator) for size in (8, 4)]
    groups = [group + image[None, :, :, None, None] for group in groups]
    mine = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    return [g[:, mine] for g in groups], torch.where(labels == 2, -1, labels)[mine]  # one class is unlabeled


def advance(engine, case, start, stop):
    """Train the steps start … stop - 1; float64[stop - start, 3]: loss, gradient norm, probe accuracy."""
    found = []
    rate = LEARNING_RATE[CASES[case][1]]
    for step in range(start, stop):
        views, labels = batch(step, engine.rank, engine.world_size)
        views = views[:1] if CASES[case][0] in ONE_SIZE else views
        output = engine(Batch.from_views(views, labels=labels, step=step))
        engine.backward(output.loss)
        engine.probe.observe(output.features, labels)
        norm = engine.step(rate * (1 - step / STEPS), 0.01, freeze=step < engine.method.freeze)
        engine.method.after_step(step, engine.gather)
        engine.probe.step()
        numbers = engine.mean({"loss": output.loss.detach(), "norm": norm})
        found.append([*numbers.values(), engine.probe.take_accuracy()["online_probe_accuracy"]])
    return torch.tensor(found, dtype=torch.float64)


def publish(engine, folder, sharded=False):
    """Write a snapshot, in one file or in one for each rank, and rename it when it is complete."""
    unfinished = folder.with_suffix(".unfinished")
    if engine.rank == 0:
        unfinished.mkdir()
    engine.barrier()
    if sharded:
        write_shard(engine.shard(), unfinished)
    else:
        snapshot = engine.snapshot()
        if engine.rank == 0:
            write(snapshot, unfinished)
    engine.barrier()
    if engine.rank == 0:
        unfinished.rename(folder)
    engine.barrier()


def wait_for(folder):
    """Wait until another process has published it."""
    for _ in range(3000):
        if folder.is_dir():
            return
        time.sleep(0.05)
    raise TimeoutError(f"{folder} was not published")


def discard(engine):
    """Remove DeepSpeed's hooks without leaving the process group."""
    if hasattr(engine, "engine"):
        engine.engine.destroy()


def curves(rank, world_size):
    """Loss, gradient norm and probe accuracy of every case and stage; the snapshot after the last step."""
    found = {}
    for case, (*_, stages) in CASES.items():
        for stage in stages:
            engine = build(case, stage, rank, world_size)
            found[f"{case} zero{stage}"] = advance(engine, case, 0, steps_of(case))
            discard(engine)
    return found


def resumed(rank, world_size, folder):
    """For each case and stage: the steps 4 … 7 of a run, the same after loading what was saved at 4, and both snapshots at 4."""
    found = {}
    for case, stage in RESUMED:
        at = f"{case}-zero{stage}"
        engine = build(case, stage, rank, world_size)
        advance(engine, case, 0, 4)
        saved = engine.snapshot()
        publish(engine, folder / f"{at}-of-{world_size}")
        publish(engine, folder / f"{at}-of-{world_size}-shards", sharded=True)
        found[f"{at} whole"] = advance(engine, case, 4, 8)
        discard(engine)
        engine = build(case, stage, rank, world_size)
        engine.load(folder / f"{at}-of-{world_size}")
        again = engine.snapshot()
        found[f"{at} resumed"] = advance(engine, case, 4, 8)
        discard(engine)
        found[f"{at} snapshots"] = torch.tensor(_same(saved, again))
        engine = build(case, stage, rank, world_size)
        engine.load(folder / f"{at}-of-{world_size}-shards")
        again = engine.snapshot()
        found[f"{at} resumed from shards"] = advance(engine, case, 4, 8)
        discard(engine)
        with open_state(folder / f"{at}-of-{world_size}-shards") as state:
            joined = {name: state.tensor(name).clone() for name in state.keys()}  # noqa: SIM118, not a mapping
        found[f"{at} shards"] = torch.tensor(_same(saved, again) and (rank > 0 or _same(saved, joined)))
    return found


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(_bits(one[k]), _bits(other[k])) for k in one)


def _bits(x):
    return x.reshape(-1).view(torch.uint8)


def skipped(rank, world_size):
    """For each stage: all tensors before and after a step in which one rank's views are NaN."""
    found = {}
    for stage in range(4):
        engine = build("dino-adamw", stage, rank, world_size)
        advance(engine, "dino-adamw", 0, 3)
        before, kept = engine.snapshot(), snapshot_buffers([engine.method, *engine.method.teachers().values()])
        views, _ = batch(3, rank, world_size)
        views = [v * float("nan") for v in views] if rank == world_size - 1 else views
        engine.backward(engine(Batch.from_views(views, step=3)).loss)
        norm = engine.step(1e-3, 0.01)
        restore_buffers(kept)
        after = engine.snapshot()
        same = before.keys() == after.keys() and all(torch.equal(_bits(before[k]), _bits(after[k])) for k in before)
        goes_on = advance(engine, "dino-adamw", 4, 6)
        found[f"zero{stage}"] = [same, not bool(norm.isfinite()), bool(goes_on.isfinite().all())]
        discard(engine)
    return found


def handed_over(rank, world_size, folder):
    """The parts of these runs that this number of processes trains, each resumed from the part before."""
    found = {}
    for case, ((processes, stage, start), (*_, stop)) in product(HANDED_OVER, pairwise(HANDOVERS)):
        if processes != world_size:
            continue
        engine = build(case, stage, rank, world_size)
        if start:
            wait_for(folder / f"{case}-step{start}")
            engine.load(folder / f"{case}-step{start}")
        found[f"{case} {start}"] = advance(engine, case, start, stop)
        publish(engine, folder / f"{case}-step{stop}", sharded=stop in (6, 12, 22, 26))
        discard(engine)
    return found


def worker(rank, world_size, port, folder):
    """All of the above, with results in `folder/WORLD_SIZE-RANK.pt`."""
    from wildfern.ssl.models import sharded_module
    from wildfern.ssl.training.deepspeed_engine import start_processes

    sharded_module.KEPT_WHOLE = 0  # so that the small teachers here are sharded at stage 3
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    start_processes("cpu", 3)
    folder = Path(folder)
    found = {"handed_over": handed_over(rank, world_size, folder)}
    found |= {"curves": curves(rank, world_size), "resumed": resumed(rank, world_size, folder)}
    found["skipped"] = skipped(rank, world_size)
    try:
        build("simclr-counting", 3, rank, world_size)
    except ValueError as error:
        found["refused"] = str(error)
    torch.save(found, folder / f"{world_size}-{rank}.pt")
    torch.distributed.destroy_process_group()
