"""`wildfern doctor`: check this machine and suggest fixes."""

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
from rich.text import Text

from wildfern.launch.torch_pair import broken_import, build_of, mismatch
from wildfern.printable import printable
from wildfern.ssl.tracking.cpu_cores import cores_allowed, cores_of_machine, cores_of_quota, load


@dataclass(frozen=True)
class Finding:
    """One check: state, what was found, and how to fix it."""

    state: Literal["ok", "optional", "broken"]
    seen: str
    remedy: str = ""


def examine(console: Console) -> int:
    """Print all checks; returns the exit code: 0 if training works here, else 1."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "part", "found", "fix"):
        table.add_column(heading)
    marks = {"ok": "[green]✓[/]", "optional": "[yellow]–[/]", "broken": "[red]✗[/]"}
    broken = 0
    for part, check in CHECKS.items():
        finding = _guarded(check)
        broken += finding.state == "broken"
        table.add_row(marks[finding.state], *(Text(printable(words)) for words in (part, finding.seen, finding.remedy)))
    console.print(table)
    console.print("ready to train" if not broken else f"{broken} to fix before training")
    return 1 if broken else 0


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # any failure of a check is its result
        if (words := broken_import(error)) is not None:
            reason = str(error).splitlines()[0]
            return Finding("broken", reason, "see torch and torchvision") if mismatch() else Finding("broken", words)
        return Finding("broken", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _python() -> Finding:
    version = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        "ok" if good else "broken", f"{version} on {platform.system()}", "" if good else "use Python 3.11 to 3.13"
    )


def _machine() -> Finding:
    cores, allowed, quota, loaded = cores_of_machine(), cores_allowed(), cores_of_quota(), load()
    words = [f"{cores} CPU cores" if allowed == cores else f"{allowed} of {cores} CPU cores (affinity)"]
    words.append("no quota" if quota is None else f"quota {quota:g} cores")
    words += [] if loaded is None else [f"load {loaded:.1f}"]
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    seen = f"{', '.join(words)}; {free:.0f} GiB free in the current folder"
    if loaded is not None and loaded >= cores:
        return Finding("optional", seen, "other programs are running; training.threads=1 may be faster")
    return Finding("ok", seen)


def _torch() -> Finding:
    import torch

    from wildfern.ssl.training.precision import computes_in_bf16

    x = torch.randn(64, 64)
    torch.testing.assert_close(x @ torch.eye(64), x)
    bf16 = "native" if computes_in_bf16(torch.device("cpu")) else "emulated (slow)"
    return Finding("ok", f"{torch.__version__}, {torch.get_num_threads()} threads, bf16 on the CPU: {bf16}")


def _pair() -> Finding:
    if (found := mismatch()) is not None:
        return Finding("broken", found.seen, found.remedy)
    import torchvision  # noqa: F401

    return Finding("ok", f"torch {build_of('torch')}, torchvision {build_of('torchvision')}")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "optional",
            "no GPU available to torch; training runs on the CPU",
            "install an NVIDIA driver and a CUDA build of torch",
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
        return Finding("broken", "one index gave two different fractals", "report this with your CPU and numba version")
    return Finding("ok", f"8 fractals in {time.perf_counter() - began:.1f} s; the first call compiles")


def _digits() -> Finding:
    from wildfern.ssl.data import open_source

    return Finding("ok", f"{open_source('digits').num_items} training digits, offline")


def _temporary() -> Finding:
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        file.write(b"x")
    return Finding("ok", "writable")


def _deepspeed() -> Finding:
    if sys.platform != "linux":
        return Finding("optional", "not on this system; training runs in one process", "use Linux")
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError:
        return Finding("optional", "not installed; training runs in one process", "pip install deepspeed")
    if shutil.which("deepspeed") is None:
        return Finding("optional", f"{version}, but no `deepspeed` command on PATH", "activate its environment")
    return Finding("ok", f"{version}: deepspeed --module wildfern.launch.pretrain --recipe …")


def _wandb() -> Finding:
    version = importlib.metadata.version("wandb")
    if os.environ.get("WANDB_API_KEY") or os.path.isfile(os.path.expanduser("~/.netrc")):
        return Finding("ok", f"{version}, off by default (tracking.wandb)")
    return Finding(
        "optional", f"{version}, no API key; tracking.wandb=offline works", "set WANDB_API_KEY, or run wandb login"
    )


def _extra(package: str, extra: str, use: str) -> Callable[[], Finding]:
    def check() -> Finding:
        try:
            return Finding("ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            return Finding("optional", f"not installed; needed for {use}", f"pip install 'wildfern[{extra}]'")

    return check


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "machine": _machine,
    "current folder": _temporary,
    "torch and torchvision": _pair,
    "torch": _torch,
    "gpu": _gpu,
    "timm, kornia, lightly": _libraries,
    "generators": _generators,
    "digits": _digits,
    "deepspeed": _deepspeed,
    "wandb": _wandb,
    "Hugging Face datasets": _extra("datasets", "hf", "hf:NAME sources"),
    "onnx": _extra("onnxscript", "onnx", "wildfern export --format onnx"),
}
