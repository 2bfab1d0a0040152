"""The estimate of a run as a table and as JSON."""

from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from wildfern.launch.estimate import Estimate, Hardware
from wildfern.launch.expected_time import rough_duration

ROWS = {
    "weights": "weights",
    "second_copy": "copy for the ZeRO optimizer",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "teachers": "teacher",
    "views": "views",
    "activations": "activations and temporaries",
}
GIB = 2**30


def estimate_table(
    estimate: Estimate,
    hardware: Hardware,
    utilization: float,
    images_per_second: float | None,
    measured: int | None,
    cpu_flops: float | None = None,
) -> Group:
    """Memory by ZeRO stage, then FLOPs, disk and time; `cpu_flops`: FLOP/s that training reaches on this machine's CPU."""
    table = Table(title=f"memory of each of {estimate.gpus} GPU{'s' * (estimate.gpus > 1)}, GiB", title_justify="left")
    table.add_column("")
    for stage in estimate.stages:
        name = "torch" if stage is None else f"ZeRO {stage}"
        table.add_column(
            f"{name} *" if stage == estimate.chosen and len(estimate.stages) > 1 else name, justify="right"
        )
    memories = list(estimate.stages.values())
    for row, words in ROWS.items():
        sizes = [getattr(memory, row) for memory in memories]
        if any(sizes):
            table.add_row(words, *(_gib(size) if size else "" for size in sizes))
    table.add_section()
    table.add_row("peak", *(_gib(memory.total) for memory in memories), style="bold")
    if hardware.memory is not None:
        table.add_row(f"of {hardware.memory:g} GiB", *(_share(memory.total, hardware.memory) for memory in memories))
    if measured is not None:
        table.add_row("measured on this machine", _gib(measured))
    if estimate.gpus > 1:
        table.add_section()
        table.add_row("sent per step, GB", *(f"{memory.sent / 1e9:.3g}" for memory in memories))
    summary = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _summary(estimate, hardware, utilization, images_per_second):
        summary.add_row(name, value)
    if cpu_flops is not None:
        seconds = estimate.steps * estimate.step_flops / cpu_flops
        summary.add_row(
            "on this CPU", f"about {rough_duration(seconds)} for {estimate.steps:,} steps, expected from the FLOPs"
        )
    notes = "Not included: the CUDA context and kernel workspaces, about 1 GiB, and the allocator's fragmentation."
    return Group(table, *([Text("* stage of this recipe")] if len(estimate.stages) > 1 else []), summary, Text(notes))


def _summary(
    estimate: Estimate, hardware: Hardware, utilization: float, images_per_second: float | None
) -> list[tuple]:
    foot = estimate.footprint
    rows = [
        ("trained parameters", f"{foot.parameters:,}"),
        ("micro-batch", f"{estimate.images} images on each GPU"),
        (
            "FLOPs",
            f"{_flops(estimate.step_flops)} per step, {_flops(estimate.step_flops / estimate.batch_size)} per image",
        ),
        ("one checkpoint", f"{_gib(estimate.checkpoint)} GiB; at most {estimate.kept} on disk"),
    ]
    if images_per_second is not None:
        hours = estimate.hours(estimate.batch_size / images_per_second)
        rows.append(("time", f"{hours:,.1f} h for {estimate.steps:,} steps at {images_per_second:g} images/s"))
    elif (seconds := estimate.step_seconds(estimate.chosen, hardware, utilization)) is not None:
        rows.append(
            (
                "time",
                f"{estimate.hours(seconds):,.1f} h for {estimate.steps:,} steps, "
                f"{estimate.batch_size / seconds:,.0f} images/s; assumed: "
                f"{utilization:.0%} of {hardware.tflops:g} TFLOP/s, no overlap of communication, no data wait",
            )
        )
    else:
        rows.append(("time", "add --gpu NAME, or --tflops (and --bandwidth), or --images-per-second"))
    return rows


def estimate_json(
    estimate: Estimate,
    hardware: Hardware,
    utilization: float,
    images_per_second: float | None,
    measured: int | None,
    command: str,
) -> dict:
    """Bytes, FLOPs and hours; `measured_peak_bytes` is null without `--measure`, and `measure_with` is the command for it."""
    seconds = estimate.batch_size / images_per_second if images_per_second else None
    if seconds is None:
        seconds = estimate.step_seconds(estimate.chosen, hardware, utilization)
    return {
        "gpus": estimate.gpus,
        "batch_size": estimate.batch_size,
        "images_per_micro_batch": estimate.images,
        "steps": estimate.steps,
        "trained_numbers": estimate.footprint.parameters,
        "step_flops": estimate.step_flops,
        "checkpoint_bytes": estimate.checkpoint,
        "checkpoints_on_disk": estimate.kept,
        "zero_stage": estimate.chosen,
        "bytes_per_rank": {
            "torch" if stage is None else f"zero_{stage}": {
                **{name: size for name, size in asdict(memory).items() if name != "sent"},
                "peak": memory.total,
                "sent_per_step": memory.sent,
            }
            for stage, memory in estimate.stages.items()
        },
        "hardware": asdict(hardware),
        "assumed_utilization": None if images_per_second else utilization,
        "hours": None if seconds is None else estimate.hours(seconds),
        "measured_peak_bytes": measured,
        "measure_with": None if measured is not None else command,
    }


def _gib(size: int) -> str:
    gib = size / GIB
    return f"{gib:,.2f}" if gib >= 0.1 else f"{gib:.4f}"


def _share(total: int, gib: float) -> str:
    share = total / GIB / gib
    return f"{share:.0%}" if share <= 1 else f"{share:.0%}: does not fit"


def _flops(count: float) -> str:
    for factor, unit in ((1e15, "PFLOP"), (1e12, "TFLOP")):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e9:,.2f} GFLOP"
