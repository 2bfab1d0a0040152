"""`wildfern doctor`: what works on this machine, and how to get the rest."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Finding:
    """One line: how it stands, what was seen, and what to do about it."""

    state: Literal["ok", "optional", "broken"]
    seen: str
    remedy: str = ""


def examine(console: Console) -> int:
    """Print the findings; returns the exit code: 0 when all that training needs works, else 1."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "part", "seen", "how to get it"):
        table.add_column(heading)
    marks = {"ok": "[green]✓[/]", "optional": "[yellow]–[/]", "broken": "[red]✗[/]"}
    broken = 0
    for part, check in CHECKS.items():
        finding = _guarded(check)
        broken += finding.state == "broken"
        table.add_row(marks[finding.state], part, finding.seen, finding.remedy)
    console.print(table)
    console.print("ready to train" if not broken else f"{broken} thing(s) to mend before training works")
    return 1 if broken else 0


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a doctor reports what it meets, whatever it is
        return Finding("broken", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _python() -> Finding:
    version = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        "ok" if good else "broken", f"{version} on {platform.system()}", "" if good else "Python 3.11 to 3.13"
    )


def _machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("ok", f"{cores} CPU cores, {free:.0f} GiB free in the working folder")


def _torch() -> Finding:
    import torch

    from wildfern.ssl.training.precision import computes_in_bf16

    x = torch.randn(64, 64)
    torch.testing.assert_close(x @ torch.eye(64), x)
    bf16 = "computes" if computes_in_bf16(torch.device("cpu")) else "does not compute"
    return Finding("ok", f"{torch.__version__}, {torch.get_num_threads()} threads; the processor {bf16} in bfloat16")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "optional",
            "no GPU that torch can use: training runs on the CPU",
            "an NVIDIA driver and a CUDA build of torch",
        )
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("ok", f"{len(names)} × {names[0]}")


def _libraries() -> Finding:
    import kornia  # noqa: F401
    import lightly.loss  # noqa: F401
    import timm
    import torchvision

    return Finding("ok", f"timm {timm.__version__}, torchvision {torchvision.__version__}")


def _generators() -> Finding:
    import numpy as np

    from wildfern.generators import make_stream

    began = time.perf_counter()
    stream = make_stream("ifs", size=32, points=1000)
    images = stream.batch(np.arange(8)).images
    again = make_stream("ifs", size=32, points=1000).batch(np.array([7])).images
    if not (images[7] == again[0]).all():
        return Finding(
            "broken", "the same index gave two different fractals", "please report this with your CPU and numba version"
        )
    return Finding("ok", f"8 fractals in {time.perf_counter() - began:.1f} s, the first call compiles once for all")


def _digits() -> Finding:
    from wildfern.ssl.data import open_source

    return Finding("ok", f"{open_source('digits').num_items} training digits, offline")


def _temporary() -> Finding:
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        file.write(b"x")
    return Finding("ok", "the working folder can be written")


def _deepspeed() -> Finding:
    if sys.platform != "linux":
        return Finding("optional", "not on this system: one process only", "Linux")
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError:
        return Finding("optional", "not installed: one process only", "pip install deepspeed")
    if shutil.which("deepspeed") is None:
        return Finding(
            "optional", f"{version}, but no `deepspeed` command on PATH", "activate the environment it is installed in"
        )
    return Finding("ok", f"{version}: deepspeed --module wildfern.launch.pretrain --recipe …")


def _wandb() -> Finding:
    version = importlib.metadata.version("wandb")
    if os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").is_file():
        return Finding("ok", f"{version}, off unless tracking.wandb says otherwise")
    return Finding("optional", f"{version}, no key: tracking.wandb=offline works", "WANDB_API_KEY, or wandb login")


def _extra(package: str, extra: str, use: str) -> Callable[[], Finding]:
    def check() -> Finding:
        try:
            return Finding("ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            return Finding("optional", f"not installed: {use}", f"pip install 'wildfern\\[{extra}]'")

    return check


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "machine": _machine,
    "working folder": _temporary,
    "torch": _torch,
    "gpu": _gpu,
    "timm, kornia, lightly": _libraries,
    "generators": _generators,
    "digits": _digits,
    "deepspeed": _deepspeed,
    "wandb": _wandb,
    "hugging face data sets": _extra("datasets", "hf", "hf:NAME sources"),
    "onnx": _extra("onnxscript", "onnx", "wildfern export --format onnx"),
}
