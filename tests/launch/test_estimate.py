"""Estimates: every bundled recipe, memory by ZeRO stage, times, the size of a checkpoint."""

import json
import math
import socket
import sys
from dataclasses import asdict, replace

import pytest
import torch
from forked_runs import forked
from small_runs import TINY
from torchvision.models.regnet import BlockParams, RegNet
from zero_memory import ADAMW, IMAGES, SIDE, Wide, step_under

from wildfern.benchmarks.scale import SEER
from wildfern.launch import assembly, pretrain
from wildfern.launch.builders import build_method
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.estimate import REDUCE_BUCKET, Estimate, Hardware, estimate, hardware, rank_memory
from wildfern.launch.estimate_table import Hosts, estimate_json
from wildfern.recipes import list_recipes
from wildfern.ssl.models import Backbone
from wildfern.ssl.training.footprint import Footprint, step_footprint

FOOT = Footprint(
    parameters=1000,
    weights=4040,  # 40 bytes of buffers
    teachers=300,
    gradients=4000,
    optimizer=8000,
    views=500,
    saved=9000,
    peak=10_000,
    peak_without_gradients=9500,
    flops=10**12,
    sent=70,
)


ESTIMATE = Estimate(
    gpus=1,
    images=8,
    batch_size=8,
    steps=1,
    step_flops=1,
    stages={None: rank_memory(FOOT, None, 1, 1)},
    chosen=None,
    checkpoint=1,
    sharded=False,
    kept=1,
    footprint=FOOT,
)


# A smaller recipe has the same method: these are estimated for one GPU alone.
LARGER = {
    *(
        "dino_ifs_vit_small",
        "dino_texture_kml_vit_small",
        "fractaldb_resnet50",
        "mix_folder_and_ifs",
        "moco_v3_ifs_vit_small",
    ),
    *(
        "seer_folder_regnet_10b",
        "seer_folder_regnety_2560",
        "simclr_ifs_resnet18",
        "simclr_ifs_resnet50",
        "supervised_ifs_multi_resnet50",
    ),
}


# A network of each kind is counted whole, others with fewer of their equal blocks, which take as long to count as to build.
WHOLE = {"dino_ifs_vit_small", "quickstart", "seer_folder_regnety_2560", "simclr_ifs_resnet50"}
FEWER_BLOCKS = {"vit": "model.arguments.depth=2", "resnet50": "model.arguments.layers=[1, 1, 1, 1]"}


@pytest.mark.parametrize("name", list_recipes())
def test_every_bundled_recipe_can_be_estimated_without_its_data(name):
    recipe = read_recipe(name, data_here=False)
    if name not in WHOLE:
        fewer = [change for kind, change in FEWER_BLOCKS.items() if recipe.model.backbone.startswith(kind)]
        recipe = read_recipe(name, fewer, data_here=False)
    alone = estimate(recipe, 1)
    assert alone.stages.keys() in ({None}, {0}, {0, 1, 2, 3})
    assert alone.checkpoint > 4 * alone.footprint.parameters
    if name not in LARGER:
        together = estimate(recipe, 8)
        assert together.step_flops == pytest.approx(alone.step_flops, rel=0.1)  # every rank computes the whole loss
        assert min(m.total for m in together.stages.values()) < min(m.total for m in alone.stages.values())
        assert min(m.sent for m in together.stages.values()) > 0


def test_each_stage_partitions_what_it_should():
    none, zero, one, two, three = (rank_memory(FOOT, stage, 4, 1) for stage in (None, 0, 1, 2, 3))
    assert none == zero
    assert zero.total == 4040 + 300 + 8000 + 500 + 10_000
    assert (zero.gradients, zero.activations) == (4000, 6000)
    assert (one.weights, one.second_copy, one.gradients, one.optimizer) == (4040, 1000, 8000, 2000)  # and a bucket
    assert (two.weights, two.second_copy, two.gradients, two.activations) == (4040, 1000, 1000 + REDUCE_BUCKET, 9500)
    assert three.weights == 40 + 1000 + 4000  # a part, and for the time of a step the whole
    assert [m.sent for m in (zero, one, two, three)] == [6070, 6070, 6070, 9070]


@pytest.mark.parametrize("gradients", [4000, 10 * REDUCE_BUCKET])
def test_the_bucket_is_allocated_whole_and_what_is_reduced_is_copied(gradients):
    """As traced in two processes of DeepSpeed: at stage 1 gradients and a bucket, from stage 2 on a bucket and its copy."""
    foot = replace(FOOT, weights=gradients + 40, gradients=gradients)
    one, two, three = (rank_memory(foot, stage, 4, 1) for stage in (1, 2, 3))
    assert one.gradients + one.reducing == gradients + REDUCE_BUCKET
    for memory in (two, three):
        assert memory.gradients + memory.reducing == gradients // 4 + REDUCE_BUCKET + min(gradients, REDUCE_BUCKET)


def test_the_start_needs_all_networks_whole_and_decides_where_that_is_more_than_a_step():
    """Students and teachers are moved to a device before the engine shards them."""
    equal = dict.fromkeys(("gradients", "optimizer", "teachers", "teacher_weights"), 10**11)
    large = replace(FOOT, weights=10**11 + 40, frozen_teachers=10**10, **equal)
    found = [rank_memory(large, stage, 64, 1) for stage in (None, 0, 1, 2, 3)]
    assert {memory.start for memory in found} == {10**11 + 40 + 10**11 + 10**10}
    assert [memory.start > memory.step for memory in found] == [False] * 4 + [True]
    assert [memory.total for memory in found] == [*(memory.step for memory in found[:4]), found[4].start]
    parts = asdict(found[4])
    assert found[4].step == sum(parts.values()) - parts["sent"] - parts["start"] < 3 * 10**10


@pytest.mark.parametrize("name", ["simclr_cifar10", "byol_cifar10", "distillation_folder_resnet18"])
def test_the_start_of_a_recipe_makes_student_and_teachers(name):
    recipe = read_recipe(name, data_here=False)
    with torch.device("meta"):
        networks = build_method(recipe).networks()
    assert len(networks) == (1 if name.startswith("simclr") else 2)
    whole = sum(x.numel() * x.element_size() for part in networks for x in (*part.parameters(), *part.buffers()))
    assert {memory.start for memory in estimate(recipe, 2).stages.values()} == {whole}


def test_only_stage_3_splits_teachers_and_only_those_that_move():
    foot = replace(FOOT, teacher_weights=240, teacher_unit=100, frozen_teachers=50)  # and 60 bytes that stay whole
    assert {rank_memory(foot, stage, 4, 1).teachers for stage in (None, 0, 1, 2)} == {350}
    assert rank_memory(foot, 3, 1, 1).teachers == 350
    split = rank_memory(foot, 3, 4, 1)
    assert split.teachers == 60 + 240 // 4 + 100 + 50
    for parts in (1, 3):  # each micro-batch gathers the three quarters that a rank does not have
        assert rank_memory(foot, 3, 4, parts).sent - rank_memory(FOOT, 3, 4, parts).sent == parts * 180


def test_activation_checkpointing_takes_less_memory_and_more_arithmetic():
    size = "img_size: 32, patch_size: 8, depth: 4, embed_dim: 32, num_heads: 2"
    vit = f"model={{backbone: vit_tiny_patch16_224, arguments: {{{size}}}}}"
    changes = [*TINY[:-1], "model.arguments=null", vit, "views.size=32"]
    plain, again = (
        estimate(read_recipe("quickstart", [*changes, f"model.activation_checkpointing={on}"]), 2)
        for on in ("false", "true")
    )
    for stage in range(4):
        assert again.stages[stage].activations < 0.6 * plain.stages[stage].activations
    assert plain.step_flops < again.step_flops < 4 / 3 * plain.step_flops
    assert again.stages[3].sent > plain.stages[3].sent  # weights are gathered once more


def measured_under(stage, folder):
    """The higher peak of two ranks, in bytes."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forked(step_under, stage, rank, port, folder) for rank in range(2)]
    for process in processes:
        process.join(200)
    return max(json.loads((folder / f"{stage}-{rank}.json").read_text()) for rank in range(2))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_memory_under_a_stage_is_within_15_percent_of_two_real_processes(stage, tmp_path):
    """DeepSpeed's buckets may be partly filled at the peak; the estimate counts them as full, or once for two."""
    with torch.device("meta"):
        method = Wide()
    foot = step_footprint(method, ADAMW, [(2, SIDE)], IMAGES, precision="fp32", world_size=2)
    estimated, peaks = rank_memory(foot, stage, 2, 1).total, []
    for attempt in range(3):  # on a busy machine memory is freed late: the smallest of a few peaks counts
        peaks.append(measured_under(stage, tmp_path / str(attempt)))
        if estimated == pytest.approx(min(peaks), rel=0.15):
            break
    assert estimated == pytest.approx(min(peaks), rel=0.15), peaks


def test_accumulation_keeps_gradients_through_the_next_forward_pass():
    whole, parts = rank_memory(FOOT, 0, 4, 1), rank_memory(FOOT, 0, 4, 3)
    assert parts.total - whole.total == 9500 + 4000 - 10_000
    assert [rank_memory(FOOT, stage, 4, 3).sent for stage in range(4)] == [6210, 6210, 12_210, 27_210]


def test_hours_follow_from_arithmetic_and_traffic_or_from_a_measured_speed():
    found = estimate(read_recipe("quickstart", [*TINY, "training.steps=3600"]), 2)
    machine = Hardware(tflops=1e-3, bandwidth=1e-3)  # 1 GFLOP/s, 1 MB/s
    seconds = found.step_seconds(1, machine, 0.5)
    assert seconds == pytest.approx(found.step_flops / 2 / 0.5e9 + found.stages[1].sent / 1e6)
    assert found.hours(seconds) == pytest.approx(seconds)
    assert found.step_seconds(1, Hardware(tflops=1.0), 0.5) is None  # two GPUs, unknown bandwidth
    written = estimate_json(found, machine, 0.5, 16.0, None, "wildfern plan quickstart --measure", Hosts())
    assert written["hours"] == pytest.approx(8 / 16)
    assert written["assumed_utilization"] is None


@pytest.mark.parametrize(
    ("gpus", "per_host", "slowest"), [(1, 8, None), (8, 8, 450.0), (9, 8, 25.0), (512, 8, 25.0), (2, 1, 25.0)]
)
def test_a_ring_is_as_fast_as_its_slowest_link(gpus, per_host, slowest):
    found = replace(ESTIMATE, gpus=gpus, stages={None: replace(ESTIMATE.stages[None], sent=9 * 10**9)})
    hosts = Hosts(gpus=per_host, bandwidth=25.0)
    seconds = found.traffic_seconds(None, Hardware(bandwidth=450.0), hosts)
    assert seconds == (0 if slowest is None else pytest.approx(9 / slowest))
    assert found.step_seconds(None, Hardware(tflops=1.0, bandwidth=450.0), 0.5, hosts) == pytest.approx(
        2e-12 / gpus + seconds
    )
    unknown = found.traffic_seconds(None, Hardware(), hosts)
    assert unknown == (seconds if gpus == 1 or per_host == 1 else None)


def test_the_largest_recipe_has_the_regnet_of_the_benchmark():
    model, blocks = read_recipe("seer_folder_regnet_10b", data_here=False).model, BlockParams.from_init_params(**SEER)
    with torch.device("meta"):
        ours, theirs = Backbone(model.backbone, **model.arguments), RegNet(blocks, num_classes=1)
    expected = sum(weight.numel() for name, weight in theirs.named_parameters() if not name.startswith("fc."))
    assert sum(weight.numel() for weight in ours.parameters()) == expected == 9_323_934_872


def test_the_checkpoint_has_the_estimated_size(tmp_path):
    changes = [*TINY, "model.arguments={layers: [1, 1, 1, 1], channels: [32, 64, 64, 64]}", "training.steps=1"]
    folder = pretrain("quickstart", changes, run=tmp_path / "run") / "checkpoints" / "step_00000001"
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert estimate(read_recipe("quickstart", changes), 1).checkpoint == pytest.approx(written, rel=0.1)


def test_the_form_of_checkpoints_is_that_of_the_run(monkeypatch):
    def form(gpus, *changes):
        found = estimate(read_recipe("quickstart", [*TINY, *changes]), gpus)
        return found.sharded, found.checkpoint_of_rank / found.checkpoint

    assert form(2) == (False, 1)
    assert form(2, "training.checkpoint_form=sharded") == (True, pytest.approx(1 / 2, rel=1e-4))
    monkeypatch.setattr(assembly, "_WHOLE_BYTES", 0)
    assert form(8)[0]
    assert not form(1)[0]
    assert not form(8, "training.checkpoint_form=whole")[0]
    assert not form(8, "engine={name: deepspeed, zero_stage: 0}")[0]


@pytest.mark.parametrize(("gpus", "per_host", "share"), [(1, 8, 1), (4, 8, 1), (8, 8, 1), (8, 2, 1 / 4), (8, 1, 1 / 8)])
def test_a_host_loads_the_images_of_its_gpus(gpus, per_host, share):
    found = replace(ESTIMATE, gpus=gpus, batch_size=4096)
    assert found.images_of_host(2.0, per_host) == 2048 * share


def test_gpu_figures_depend_on_the_precision_and_can_be_overridden():
    assert hardware("fp32", "H100", None, None, 25.0) == Hardware(79.6, 67.0, 25.0)
    for value in (0.0, math.inf, math.nan):
        with pytest.raises(RunError, match="--memory must be a finite number above 0"):
            hardware("bf16", None, value, None, None)


def test_kept_checkpoints_count_on_disk():
    changes = [*TINY, "training.steps=1000", "training.checkpoint_every=50", "training.keep_every=100"]
    assert estimate(read_recipe("quickstart", changes), 1).kept == 2 + 1 + 10
