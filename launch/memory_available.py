"""Memory that a training step may use on this machine."""

from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def memory_available(device: torch.device) -> int | None:
    """Bytes that are free: of the GPU, else of the machine, at most what its container has left; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [found for found in (_of_machine(), _of_container()) if found is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):  # not Linux
        return None


def _of_container() -> int | None:
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no container, or no limit ("max")
        return None
