"""The launcher variables of torch and DeepSpeed from those of Slurm's `srun`, which then needs no other launcher."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from wildfern.launch.cluster.launcher_environment import number_of
from wildfern.launch.errors import RunError

T = TypeVar("T")

PORTS = range(15_000, 25_000)  # below the ephemeral ports
ADVICE = "set RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each task yourself"


def launcher_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT of one of several tasks of `srun`; else empty.

    Variables that are already set are not returned, and nothing is if a launcher has set RANK. The master is the first host
    of the step; its port follows from the job number. Raises RunError, naming it, for a Slurm variable
    that is missing or has no such value.
    """
    # A batch script has SLURM_PROCID and SLURM_NTASKS too; SLURM_STEP_NUM_TASKS is set in the tasks of a step only.
    alone = environment.get("SLURM_STEP_NUM_TASKS", "1") == "1"  # an interactive shell too
    if environment.get("RANK") or alone or "SLURM_PROCID" not in environment:
        return {}
    try:
        tasks = environment["SLURM_STEP_TASKS_PER_NODE"]
        found = {
            "RANK": number_of(environment, "SLURM_PROCID"),
            "LOCAL_RANK": number_of(environment, "SLURM_LOCALID"),
            "WORLD_SIZE": number_of(environment, "SLURM_STEP_NUM_TASKS", 1),
            "LOCAL_WORLD_SIZE": _of(
                "SLURM_STEP_TASKS_PER_NODE", tasks_on_node, tasks, number_of(environment, "SLURM_NODEID")
            ),
            "MASTER_ADDR": _of("SLURM_STEP_NODELIST", first_host, environment["SLURM_STEP_NODELIST"]),
            "MASTER_PORT": PORTS[number_of(environment, "SLURM_JOB_ID", most=2**32 - 1) % len(PORTS)],
        }
    except KeyError as error:
        raise RunError(f"the environment variable {error.args[0]} of this srun task is not set: {ADVICE}") from None
    if found["RANK"] >= found["WORLD_SIZE"]:
        raise RunError(
            f"the environment variable SLURM_PROCID is {found['RANK']}, but SLURM_STEP_NUM_TASKS is {found['WORLD_SIZE']}: "
            f"{ADVICE}"
        )
    return {name: str(value) for name, value in found.items() if not environment.get(name)}


def first_host(nodes: str) -> str:
    """The first host of a Slurm list: gpu003-ib of `gpu[003-007,9]-ib,login1`. Raises ValueError."""
    found = re.match(r"([^,\[\]]+)(?:\[(\w+)[^\]]*\]([^,\[\]]*))?(?:,|$)", nodes)
    host = "" if found is None else "".join(part or "" for part in found.groups())
    if not re.fullmatch(r"\w[\w.:%-]*", host):  # a leading "-" would be an option to programs that get it
        raise ValueError(f"not a list of hosts: {nodes!r}")
    return host


def tasks_on_node(counts: str, node: int) -> int:
    """Number of tasks on node `node` in a Slurm list such as `8(x3),4`. Raises ValueError."""
    before = 0
    for part in counts.split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", part)
        if found is None:
            raise ValueError(f"not a list of task counts: {counts!r}")
        before += int(found[2] or 1)
        if node < before:
            return int(found[1])
    raise ValueError(f"a list of {before} nodes, but SLURM_NODEID is {node}: {counts!r}")


def _of(name: str, parse: Callable[..., T], *values: object) -> T:
    try:
        return parse(*values)
    except ValueError as error:
        raise RunError(f"the environment variable {name} is {error}: {ADVICE}") from None
