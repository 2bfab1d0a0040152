"""A forecast for people, and for programs."""

from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from wildfern.launch.planning import Estimate, Hardware

ROWS = {
    "weights": "weights",
    "second_copy": "their copy for ZeRO's optimizer",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "teachers": "teacher",
    "views": "views",
    "activations": "activations and temporaries",
}
GIB = 2**30


def plan_table(
    plan: Estimate, hardware: Hardware, utilization: float, images_per_second: float | None, measured: int | None
) -> Group:
    """Memory by ZeRO stage, then what a step and the whole run take."""
    table = Table(title=f"memory of each of {plan.gpus} GPU{'s' * (plan.gpus > 1)}, GiB", title_justify="left")
    table.add_column("")
    for stage in plan.stages:
        name = "torch" if stage is None else f"ZeRO {stage}"
        table.add_column(f"{name} *" if stage == plan.chosen and len(plan.stages) > 1 else name, justify="right")
    memories = list(plan.stages.values())
    for row, words in ROWS.items():
        sizes = [getattr(memory, row) for memory in memories]
        if any(sizes):
            table.add_row(words, *(_gib(size) if size else "" for size in sizes))
    table.add_section()
    table.add_row("at the peak", *(_gib(memory.total) for memory in memories), style="bold")
    if hardware.memory is not None:
        table.add_row(f"of {hardware.memory:g} GiB", *(_share(memory.total, hardware.memory) for memory in memories))
    if measured is not None:
        table.add_row("measured here", _gib(measured))
    if plan.gpus > 1:
        table.add_section()
        table.add_row("sent in a step, GB", *(f"{memory.sent / 1e9:.3g}" for memory in memories))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _facts(plan, hardware, utilization, images_per_second):
        facts.add_row(name, value)
    notes = "Beside this: the GPU's context and the workspaces of its kernels, about 1 GiB, and what its allocator rounds up."
    return Group(table, *([Text("* the stage of this recipe")] if len(plan.stages) > 1 else []), facts, Text(notes))


def _facts(plan: Estimate, hardware: Hardware, utilization: float, images_per_second: float | None) -> list[tuple]:
    foot = plan.footprint
    rows = [
        ("trained numbers", f"{foot.parameters:,}"),
        ("images of a micro-batch", f"{plan.images} on each GPU"),
        ("arithmetic", f"{_flops(plan.step_flops)} a step, {_flops(plan.step_flops / plan.batch_size)} an image"),
        ("one checkpoint", f"{_gib(plan.checkpoint)} GiB; up to {plan.kept} on the disk"),
    ]
    if images_per_second is not None:
        hours = plan.hours(plan.batch_size / images_per_second)
        rows.append(("time", f"{hours:,.1f} h for {plan.steps:,} steps at {images_per_second:g} images/s"))
    elif (seconds := plan.step_seconds(plan.chosen, hardware, utilization)) is not None:
        rows.append(
            (
                "time",
                f"{plan.hours(seconds):,.1f} h for {plan.steps:,} steps, {plan.batch_size / seconds:,.0f} images/s; assumed: "
                f"{utilization:.0%} of {hardware.tflops:g} TFLOP/s, no communication hidden, data in time",
            )
        )
    else:
        rows.append(("time", "say --gpu NAME, or --tflops (and --bandwidth), or --images-per-second as measured"))
    return rows


def plan_json(
    plan: Estimate,
    hardware: Hardware,
    utilization: float,
    images_per_second: float | None,
    measured: int | None,
    command: str,
) -> dict:
    """Bytes, FLOPs and hours; `measured_peak_bytes` is null until `--measure` has run, and `measure_with` says how."""
    seconds = plan.batch_size / images_per_second if images_per_second else None
    if seconds is None:
        seconds = plan.step_seconds(plan.chosen, hardware, utilization)
    return {
        "gpus": plan.gpus,
        "batch_size": plan.batch_size,
        "images_per_micro_batch": plan.images,
        "steps": plan.steps,
        "trained_numbers": plan.footprint.parameters,
        "step_flops": plan.step_flops,
        "checkpoint_bytes": plan.checkpoint,
        "checkpoints_on_disk": plan.kept,
        "zero_stage": plan.chosen,
        "bytes_per_rank": {
            "torch" if stage is None else f"zero_{stage}": {
                **{name: size for name, size in asdict(memory).items() if name != "sent"},
                "peak": memory.total,
                "sent_per_step": memory.sent,
            }
            for stage, memory in plan.stages.items()
        },
        "hardware": asdict(hardware),
        "assumed_utilization": None if images_per_second else utilization,
        "hours": None if seconds is None else plan.hours(seconds),
        "measured_peak_bytes": measured,
        "measure_with": None if measured is not None else command,
    }


def _gib(size: int) -> str:
    gib = size / GIB
    return f"{gib:,.2f}" if gib >= 0.1 else f"{gib:.4f}"


def _share(total: int, gib: float) -> str:
    share = total / GIB / gib
    return f"{share:.0%}" if share <= 1 else f"{share:.0%}: too much"


def _flops(count: float) -> str:
    for factor, unit in ((1e15, "PFLOP"), (1e12, "TFLOP")):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e9:,.2f} GFLOP"
