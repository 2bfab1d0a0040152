"""The machine and software of a run, for its `environment.json`."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .cpu_cores import cores_of_quota, load, usable_cores

PACKAGES = ("torch", "torchvision", "numpy", "numba", "timm", "kornia", "lightly", "deepspeed")


def environment() -> dict[str, Any]:
    """Versions, processor, memory, GPUs and git commit, ready for JSON; None for anything unknown.

    Imports none of the listed packages; GPUs are listed only if torch is already imported. Contains no host, user or path.
    """
    return {
        "wildfern": _version("wildfern"),
        "git": _git_state(Path(__file__).resolve().parents[2]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpus(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("model name", "cpu model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _cpu() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    return {
        "model": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "quota_cores": cores_of_quota(),
        "load": load(),
        "torch_threads": None if torch is None else torch.get_num_threads(),
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[dict[str, Any]] | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def _git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout whose top folder is `root`; None for an installed copy, even inside another checkout."""
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != root:
        return None
    return {"commit": commit, "modified": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
