"""Estimate memory per GPU, FLOPs, traffic, hours, disk and the data of each host of a recipe, from a dry run without a GPU."""

import math
from dataclasses import asdict, dataclass
from functools import partial

import torch

from wildfern.launch.assembly import in_shards
from wildfern.launch.builders import build_method, with_precision
from wildfern.launch.device import choose_device
from wildfern.launch.errors import RunError
from wildfern.recipes import Recipe
from wildfern.recipes.schema import Component
from wildfern.ssl.augmentation import VIEWS
from wildfern.ssl.training import OPTIMIZERS, TorchEngine, is_layer_wise
from wildfern.ssl.training.footprint import Footprint, step_footprint
from wildfern.ssl.training.measured_peak import measured_peak

REDUCE_BUCKET = 4 * 50_000_000  # bytes; the engine's reduce_bucket_size in float32
# bf16 training makes bfloat16 views if the first layer would round them anyway: true of all common backbones.
VIEW_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KEPT_GATHERED = 4 * 1_000_000_000  # bytes of weights that ZeRO 3 keeps gathered: DeepSpeed's stage3_max_live_parameters


@dataclass(frozen=True)
class Hardware:
    """A GPU: memory (GiB, as the driver reports it), dense TFLOP/s, and GB/s in one direction of its link."""

    memory: float | None = None
    tflops: float | None = None
    bandwidth: float | None = None


@dataclass(frozen=True)
class Hosts:
    """The hosts of a run: GPUs of each, images on disk that each indexes (None: not asked for), and GB/s out of each, one way."""

    gpus: int = 8
    images: int | None = None
    bandwidth: float = 50.0  # InfiniBand of 400 Gbit/s


HOSTS = Hosts()

# NVIDIA's data sheets: dense bfloat16 with tensor cores, float32 without; NVLink, or PCIe 4.0 where there is none.
GPUS = {
    "h100": {"memory": 79.6, "bf16": 989.0, "fp32": 67.0, "bandwidth": 450.0},
    "h200": {"memory": 140.4, "bf16": 989.0, "fp32": 67.0, "bandwidth": 450.0},
    "a100": {"memory": 80.0, "bf16": 312.0, "fp32": 19.5, "bandwidth": 300.0},
    "a100-40gb": {"memory": 40.0, "bf16": 312.0, "fp32": 19.5, "bandwidth": 300.0},
    "l40s": {"memory": 45.0, "bf16": 362.0, "fp32": 91.6, "bandwidth": 32.0},
    "rtx4090": {"memory": 24.0, "bf16": 165.0, "fp32": 82.6, "bandwidth": 32.0},
}


@dataclass(frozen=True)
class RankMemory:
    """Bytes per rank under one ZeRO stage: the parts of a training step's peak, and the peak of the start.

    `second_copy` is the flat partition of the weights that ZeRO's optimizer updates. `gradients` have the bucket in which they
    are reduced, at stage 1 as far as it is filled; `reducing` is its rest there, and the copy that is sent at stages 2 and 3.
    """

    weights: int
    second_copy: int
    gradients: int
    reducing: int
    optimizer: int
    teachers: int
    views: int
    activations: int  # and everything else alive at the peak
    sent: int  # bytes that the rank sends per step; not memory
    start: int  # all networks whole, before weights are sharded; not a part of a step

    @property
    def step(self) -> int:
        """Peak of a training step."""
        return sum(asdict(self).values()) - self.sent - self.start

    @property
    def total(self) -> int:
        """Peak of a run, the larger of a step's and the start's."""
        return max(self.step, self.start)


@dataclass(frozen=True)
class Estimate:
    """The estimate for a recipe on `gpus` ranks; by ZeRO stage, None is one process of plain torch."""

    gpus: int
    images: int  # of a rank's micro-batch
    batch_size: int
    steps: int
    step_flops: int  # of all ranks
    stages: dict[int | None, RankMemory]
    chosen: int | None  # the stage that the recipe names
    checkpoint: int  # bytes of one checkpoint
    sharded: bool  # whether each rank copies and writes its part of it, rather than rank 0 all
    kept: int  # number of checkpoints kept on disk
    footprint: Footprint

    def step_seconds(
        self, stage: int | None, hardware: Hardware, utilization: float, hosts: Hosts = HOSTS
    ) -> float | None:
        """Seconds of compute plus communication, without overlap; None if the hardware is unknown."""
        traffic = self.traffic_seconds(stage, hardware, hosts)
        if hardware.tflops is None or traffic is None:
            return None
        return self.step_flops / self.gpus / (hardware.tflops * 1e12 * utilization) + traffic

    def traffic_seconds(self, stage: int | None, hardware: Hardware, hosts: Hosts) -> float | None:
        """Seconds of communication per step, on a ring through all GPUs, host by host, which is as fast as its slowest link.

        On such a ring a host sends as many bytes to the next one as each GPU to its neighbor. None if a GPU's link is unknown.
        """
        if self.gpus == 1:
            return 0.0
        within, between = hosts.gpus > 1, self.gpus > hosts.gpus
        if within and hardware.bandwidth is None:
            return None
        links = [hardware.bandwidth] * within + [hosts.bandwidth] * between
        return self.stages[stage].sent / (min(links) * 1e9)

    @property
    def checkpoint_of_rank(self) -> int:
        """Bytes of a checkpoint that a rank copies to host memory and writes: each rank, or rank 0 alone."""
        return -(-self.checkpoint // self.gpus) if self.sharded else self.checkpoint

    def images_of_host(self, seconds_per_step: float, gpus_per_host: int) -> float:
        """Images per second that a host with this number of GPUs must load."""
        return self.batch_size / seconds_per_step * min(gpus_per_host, self.gpus) / self.gpus

    def hours(self, seconds_per_step: float) -> float:
        return self.steps * seconds_per_step / 3600


def estimate(recipe: Recipe, gpus: int) -> Estimate:
    """A dry run of one step of the recipe on `gpus` ranks, precision auto as bf16. Raises RunError for an impossible recipe."""
    recipe = with_precision(recipe, None)
    training, optimizer = recipe.training, recipe.optimizer
    parts = training.accumulation * gpus
    if training.batch_size % parts:
        raise RunError(
            f"training.batch_size {training.batch_size} does not divide into {training.accumulation} × {gpus} "
            "(accumulation × GPUs) equal parts"
        )
    views = VIEWS[recipe.views.name](**recipe.views.arguments)
    try:
        with torch.device("meta"):
            method = build_method(recipe)
        foot = step_footprint(
            method,
            partial(OPTIMIZERS[optimizer.name], **recipe.optimizer_arguments),
            views.shape,
            training.batch_size // parts,
            precision=training.precision,
            channels=views.channels,
            view_dtype=VIEW_DTYPES[training.precision],
            world_size=gpus,
            parts=training.accumulation,
            step=training.steps // 2,  # past warm-ups, which may freeze layers
        )
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RunError(
            f"{recipe.method.name} on {recipe.model.backbone} cannot be estimated: {error} (does the backbone take views of "
            "this size? wildfern pretrain checks it)"
        ) from error
    single = recipe.engine.name == "torch" and gpus == 1
    possible = [None] if single else [0] if is_layer_wise(optimizer.name) else [0, 1, 2, 3]
    wanted = None if single else recipe.engine.arguments.get("zero_stage", 1)
    chosen = wanted if wanted in possible else possible[0]
    if not single:  # a launcher chooses this engine
        recipe = recipe.model_copy(update={"engine": Component(name="deepspeed", arguments={"zero_stage": chosen})})
    return Estimate(
        gpus=gpus,
        images=training.batch_size // parts,
        batch_size=training.batch_size,
        steps=training.steps,
        step_flops=foot.flops * parts,
        stages={stage: rank_memory(foot, stage, gpus, training.accumulation) for stage in possible},
        chosen=chosen,
        checkpoint=foot.weights + foot.teachers + foot.optimizer,
        sharded=in_shards(recipe, method, gpus),
        # The oldest is deleted after the newest is complete; those of keep_every stay.
        kept=training.keep_checkpoints + 1 + (training.steps // training.keep_every if training.keep_every else 0),
        footprint=foot,
    )


def rank_memory(foot: Footprint, stage: int | None, gpus: int, accumulation: int) -> RankMemory:
    """Partition a footprint over ranks as `DeepSpeedEngine` does (float32 weights, gradients reduced in float32).

    Below stage 2 gradients are kept in full and reduced at the end of a step (stage 1: through a bucket); from stage 2 on
    they are reduced in each micro-batch. Stage 3 gathers the weights in each forward and again in the backward pass, and keeps
    at most stage3_max_live_parameters. It splits the large weights of momentum teachers too, and gathers them for one module at
    a time, once in each micro-batch; frozen teachers are whole. Traffic is that of ring collectives.

    At the start each network, teachers included, is moved to the device whole; then DeepSpeed shards its weights one by one. A
    second copy that it makes at stages 1 and 2 is not counted: without room for it, weights are flattened in host memory.
    """
    size, trained = (stage or 0), foot.gradients
    rest = foot.weights - trained  # buffers and frozen parameters
    part = -(-trained // gpus)
    ring = (gpus - 1) * trained // gpus
    weights = trained if size < 3 else part + min(trained, KEPT_GATHERED)
    whole_teachers, split_teachers = foot.teachers, 0
    if size == 3 and gpus > 1:
        whole_teachers, split_teachers = foot.teachers - foot.teacher_weights + foot.teacher_unit, foot.teacher_weights
    filled = min(trained, REDUCE_BUCKET)
    gradients = {0: trained, 1: trained + filled}.get(size, part + REDUCE_BUCKET)
    moved = {
        0: 2 * ring,
        1: 2 * ring,
        2: (accumulation + 1) * ring,
        3: accumulation * ((2 + foot.forward_passes) * ring + (gpus - 1) * split_teachers // gpus),
    }[size]
    return RankMemory(
        weights=rest + weights,
        second_copy=part if size else 0,
        gradients=gradients,
        reducing={0: 0, 1: REDUCE_BUCKET - filled}.get(size, filled),  # the bucket is allocated whole
        optimizer=foot.optimizer if size == 0 else -(-foot.optimizer // gpus),
        teachers=whole_teachers + -(-split_teachers // gpus) + foot.frozen_teachers,
        views=foot.views,
        # Gradients appear as activations are freed: what remains of the peak beside all gradients.
        activations=max(foot.peak - trained, 0) if size < 2 and accumulation == 1 else foot.peak_without_gradients,
        sent=moved + accumulation * foot.sent if gpus > 1 else 0,
        start=foot.weights + foot.teachers + foot.frozen_teachers,
    )


def hardware(
    precision: str, gpu: str | None, memory: float | None, tflops: float | None, bandwidth: float | None
) -> Hardware:
    """A GPU of `GPUS` by name, with the given figures replaced.

    Raises RunError for an unknown name, and for a figure that is not finite and above 0.
    """
    gpu = None if gpu is None else gpu.lower()
    if gpu is not None and gpu not in GPUS:
        raise RunError(
            f"--gpu must be one of {', '.join(GPUS)}; for {gpu!r} use --memory GiB --tflops TFLOP/s --bandwidth GB/s"
        )
    known = GPUS.get(gpu, {})
    given = {"memory": memory, "tflops": tflops, "bandwidth": bandwidth}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise RunError(f"--{name} must be a finite number above 0, got {value:g}")
    named = {"memory": known.get("memory"), "tflops": known.get(precision), "bandwidth": known.get("bandwidth")}
    return Hardware(**{name: named[name] if value is None else value for name, value in given.items()})


def measure(recipe: Recipe, gpus: int) -> int:
    """Peak bytes of real steps of the recipe in this process. Raises RunError for more than one GPU."""
    if gpus > 1:
        raise RunError("--measure runs one process: use --gpus 1 and the training.batch_size of one GPU")
    device = choose_device(recipe.training.device)
    recipe = with_precision(recipe, device)
    method = build_method(recipe)
    layout = {"memory_format": torch.channels_last} if recipe.training.channels_last else {}
    for module in method.networks():
        module.to(device, **layout)
    engine = TorchEngine(
        method,
        partial(OPTIMIZERS[recipe.optimizer.name], **recipe.optimizer_arguments),
        recipe.optimizer_arguments["weight_decay"],
        device=device,
        precision=recipe.training.precision,
    )
    views, images = VIEWS[recipe.views.name](**recipe.views.arguments), recipe.training.batch_size
    return measured_peak(
        engine,
        views.shape,
        images // recipe.training.accumulation,
        channels=views.channels,
        view_dtype=VIEW_DTYPES[recipe.training.precision],
    )
