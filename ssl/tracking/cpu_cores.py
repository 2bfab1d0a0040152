"""CPU cores that this process may use: its affinity and the quota of its control groups (containers); the machine's load."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc")


def cores_of_machine() -> int:
    return os.cpu_count() or 1


def cores_allowed() -> int:
    """The cores of this process's CPU affinity; all of them where the system has none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores_of_machine()


def cores_of_quota(proc: Path = PROC) -> float | None:
    """CPU time per time that the control groups of this process allow, in cores, such as 1.5; None without a limit.

    The smallest limit of the group and of all groups around it that can be seen: `cpu.max` of version 2,
    `cpu.cfs_quota_us` of version 1.
    """
    found = [quota for folder in _groups(proc) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def usable_cores() -> int:
    """Whole cores that affinity and quota leave, at least 1."""
    quota = cores_of_quota()
    return max(1, min(cores_allowed(), int(quota) if quota is not None else cores_allowed()))


def load() -> float | None:
    """Processes and threads that run or wait for a core of the whole machine, averaged over a minute; None where unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows
        return None


def _quota(group: Path) -> float | None:
    try:
        words = (group / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = [(group / name).read_text(encoding="utf-8").strip() for name in names]
        except (OSError, ValueError):
            return None
    try:
        allowed, period = (int(word) for word in words)  # version 2 says "max" for no limit, version 1 says -1
    except ValueError:
        return None
    return allowed / period if allowed > 0 and period > 0 else None


def _groups(proc: Path) -> Iterator[Path]:
    """The folder of each CPU control group of this process, and those around it, as far as they can be seen."""
    try:
        memberships = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = [_mount(line) for line in (proc / "self/mountinfo").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return
    for line in memberships:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = "cgroup" if controllers else "cgroup2"
        if controllers and "cpu" not in controllers.split(","):
            continue
        for kind, root, point, options in filter(None, mounts):
            if kind == version and (version == "cgroup2" or "cpu" in options):
                yield from _upwards(Path(point), PurePosixPath(root), PurePosixPath(path))


def _mount(line: str) -> tuple[str, str, str, list[str]] | None:
    """File system, folder of it that is mounted, where, and options, of a line of mountinfo (proc(5))."""
    before, dash, after = line.partition(" - ")
    fields, kinds = before.split(" "), after.split(" ")
    if not dash or len(fields) < 5 or len(kinds) < 3:
        return None
    return kinds[0], fields[3], fields[4].replace("\\040", " "), kinds[2].split(",")


def _upwards(point: Path, root: PurePosixPath, path: PurePosixPath) -> Iterator[Path]:
    """From a group up to the mount point; a group outside of what is mounted, as in some containers, is the mount point."""
    inside = path.relative_to(root).parts if path.is_relative_to(root) and ".." not in path.parts else ()
    for count in range(len(inside), -1, -1):
        yield point.joinpath(*inside[:count])
