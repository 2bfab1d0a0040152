"""The estimate of a run as a table and as JSON."""

from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from wildfern.launch.estimate import HOSTS, Estimate, Hardware, Hosts, RankMemory
from wildfern.launch.estimate_notes import GIB, estimate_notes, gib_words
from wildfern.launch.expected_time import rough_duration
from wildfern.launch.index_size import PATH_BYTES, folder_index_bytes, shard_index_bytes

ROWS = {
    "weights": "weights",
    "second_copy": "the optimizer's copy of weights",
    "gradients": "gradients",
    "reducing": "buffers of their reduction",
    "optimizer": "optimizer",
    "teachers": "teacher",
    "views": "views",
    "activations": "activations and temporaries",
}


def estimate_table(
    estimate: Estimate,
    hardware: Hardware,
    utilization: float,
    images_per_second: float | None,
    measured: int | None,
    cpu_flops: float | None = None,
    hosts: Hosts = HOSTS,
) -> Group:
    """Memory by ZeRO stage, then FLOPs, disk, time and data; `cpu_flops`: FLOP/s that training reaches on this machine's CPU."""
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
            table.add_row(words, *(gib_words(size) if size else "" for size in sizes))
    table.add_section()
    if any(memory.start > memory.step for memory in memories):
        table.add_row("peak of a step", *(gib_words(memory.step) for memory in memories))
        table.add_row("start, networks whole", *(gib_words(memory.start) for memory in memories))
    table.add_row("peak", *(gib_words(memory.total) for memory in memories), style="bold")
    if hardware.memory is not None:
        table.add_row(f"of {hardware.memory:g} GiB", *(_share(memory.total, hardware.memory) for memory in memories))
    if measured is not None:
        table.add_row("measured on this machine", gib_words(measured))
    if estimate.gpus > 1:
        table.add_section()
        table.add_row("sent per step, GiB", *(f"{memory.sent / GIB:.3g}" for memory in memories))
    summary = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _summary(estimate, hardware, utilization, images_per_second, hosts):
        summary.add_row(name, value)
    if cpu_flops is not None:
        seconds = estimate.steps * estimate.step_flops / cpu_flops
        summary.add_row(
            "on this CPU", f"about {rough_duration(seconds)} for {estimate.steps:,} steps, expected from the FLOPs"
        )
    notes = [Text(note) for note in estimate_notes(estimate)]
    return Group(table, *([Text("* stage of this recipe")] if len(estimate.stages) > 1 else []), summary, *notes)


def _summary(
    estimate: Estimate, hardware: Hardware, utilization: float, images_per_second: float | None, hosts: Hosts
) -> list[tuple[str, str]]:
    foot = estimate.footprint
    seconds = _step_seconds(estimate, hardware, utilization, images_per_second, hosts)
    rows = [
        ("trained parameters", f"{foot.parameters:,}"),
        ("micro-batch", f"{estimate.images} images on each GPU"),
        (
            "FLOPs",
            f"{_flops(estimate.step_flops)} per step, {_flops(estimate.step_flops / estimate.batch_size)} per image",
        ),
        (
            "one checkpoint",
            f"{gib_words(estimate.checkpoint)} GiB{_writers(estimate)}; at most {estimate.kept} on disk",
        ),
    ]
    if seconds is None:
        rows.append(("time", "add --gpu NAME, or --tflops (and --bandwidth), or --images-per-second"))
    elif images_per_second is not None:
        hours = estimate.hours(seconds)
        rows.append(("time", f"{hours:,.1f} h for {estimate.steps:,} steps at {images_per_second:g} images/s"))
    else:
        rows.append(
            (
                "time",
                f"{estimate.hours(seconds):,.1f} h for {estimate.steps:,} steps, "
                f"{estimate.batch_size / seconds:,.0f} images/s; assumed: "
                f"{utilization:.0%} of {hardware.tflops:g} TFLOP/s, no overlap of communication, no data wait",
            )
        )
        if traffic := _traffic(estimate, hardware, hosts):
            rows.append(("traffic", traffic))
    if seconds is not None:
        images = estimate.images_of_host(seconds, hosts.gpus)
        rows.append(("data", f"{images:,.0f} images/s to load on {_host(estimate, hosts)}"))
    if hosts.images is not None:
        folder, shards = (gib_words(size(hosts.images)) for size in (folder_index_bytes, shard_index_bytes))
        rows.append(
            (
                f"index of {hosts.images:,} images",
                f"{folder} GiB for a folder, {shards} GiB for tar shards (names of {PATH_BYTES} bytes), on disk, "
                "mapped by all processes of a host",
            )
        )
    return rows


def _step_seconds(
    estimate: Estimate, hardware: Hardware, utilization: float, images_per_second: float | None, hosts: Hosts
) -> float | None:
    if images_per_second is not None:
        return estimate.batch_size / images_per_second
    return estimate.step_seconds(estimate.chosen, hardware, utilization, hosts)


def _traffic(estimate: Estimate, hardware: Hardware, hosts: Hosts) -> str | None:
    """Seconds of communication and the links that they are for; None without any."""
    seconds = estimate.traffic_seconds(estimate.chosen, hardware, hosts)
    if not seconds:
        return None
    links = []
    if hosts.gpus > 1:
        links.append(f"{hardware.bandwidth:g} GB/s between the GPUs of a host (--bandwidth)")
    if estimate.gpus > hosts.gpus:
        links.append(f"{hosts.bandwidth:g} GB/s out of each host (--host-bandwidth)")
    return f"{seconds:.2g} s of a step's time; assumed, one way: {', '.join(links)}"


def _writers(estimate: Estimate) -> str:
    """Who copies and writes a checkpoint, if there are several ranks."""
    if estimate.sharded:
        parts = "1 part" if estimate.gpus == 1 else f"{estimate.gpus} parts"
        return f" in {parts} (sharded): each rank copies and writes {gib_words(estimate.checkpoint_of_rank)} GiB"
    return " (whole): rank 0 copies and writes all of it" if estimate.gpus > 1 else ""


def _host(estimate: Estimate, hosts: Hosts) -> str:
    if estimate.gpus <= hosts.gpus:
        return "the host"
    return f"each of {-(-estimate.gpus // hosts.gpus):,} hosts with {hosts.gpus} GPU{'s' * (hosts.gpus > 1)}"


def estimate_json(
    estimate: Estimate,
    hardware: Hardware,
    utilization: float,
    images_per_second: float | None,
    measured: int | None,
    command: str,
    hosts: Hosts = HOSTS,
) -> dict:
    """Bytes, FLOPs and hours; `measured_peak_bytes` is null without `--measure`, and `measure_with` is the command for it.

    `index_bytes_per_host` is null without `--images`, `host_bandwidth` for one host.
    """
    seconds = _step_seconds(estimate, hardware, utilization, images_per_second, hosts)
    images = hosts.images
    return {
        "gpus": estimate.gpus,
        "batch_size": estimate.batch_size,
        "images_per_micro_batch": estimate.images,
        "steps": estimate.steps,
        "trained_numbers": estimate.footprint.parameters,
        "step_flops": estimate.step_flops,
        "checkpoint_bytes": estimate.checkpoint,
        "checkpoint_form": "sharded" if estimate.sharded else "whole",
        "checkpoint_bytes_of_a_writer": estimate.checkpoint_of_rank,
        "checkpoints_on_disk": estimate.kept,
        "zero_stage": estimate.chosen,
        "bytes_per_rank": {
            "torch" if stage is None else f"zero_{stage}": _bytes_of_rank(memory)
            for stage, memory in estimate.stages.items()
        },
        "hardware": asdict(hardware),
        "assumed_utilization": None if images_per_second else utilization,
        "hours": None if seconds is None else estimate.hours(seconds),
        "gpus_per_host": hosts.gpus,
        "host_bandwidth": hosts.bandwidth if estimate.gpus > hosts.gpus else None,
        "images_per_second_per_host": None if seconds is None else estimate.images_of_host(seconds, hosts.gpus),
        "index_bytes_per_host": None
        if images is None
        else {"folder": folder_index_bytes(images), "shards": shard_index_bytes(images)},
        "measured_peak_bytes": measured,
        "measure_with": None if measured is not None else command,
    }


def _bytes_of_rank(memory: RankMemory) -> dict[str, int]:
    """The parts of a step's peak, the peaks of a step and of the start, and the larger of both, `peak`."""
    sizes = {name: size for name, size in asdict(memory).items() if name not in ("sent", "start")}
    peaks = {"peak_of_a_step": memory.step, "peak_of_the_start": memory.start, "peak": memory.total}
    return {**sizes, **peaks, "sent_per_step": memory.sent}


def _share(total: int, gib: float) -> str:
    share = total / GIB / gib
    return f"{share:.0%}" if share <= 1 else f"{share:.0%}: does not fit"


def _flops(count: float) -> str:
    for factor, unit in ((1e15, "PFLOP"), (1e12, "TFLOP")):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e9:,.2f} GFLOP"
