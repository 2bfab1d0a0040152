"""The launcher variables of torch and DeepSpeed from those of Slurm's `srun`, which then needs no other launcher."""

import re
from collections.abc import Mapping

from wildfern.launch.errors import RunError

PORTS = range(15_000, 25_000)  # below the ephemeral ports


def launcher_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT of a task of `srun`; empty elsewhere.

    Variables that are already set are not returned, and nothing is if a launcher has set RANK. The master is the first host
    of the step; its port follows from the job number. Raises RunError for variables it cannot parse.
    """
    # A batch script has SLURM_PROCID and SLURM_NTASKS too; SLURM_STEP_NUM_TASKS is set in the tasks of a step only.
    if "RANK" in environment or "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return {}
    try:
        found = {
            "RANK": environment["SLURM_PROCID"],
            "LOCAL_RANK": environment["SLURM_LOCALID"],
            "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
            "LOCAL_WORLD_SIZE": str(
                tasks_on_node(environment["SLURM_STEP_TASKS_PER_NODE"], int(environment["SLURM_NODEID"]))
            ),
            "MASTER_ADDR": first_host(environment["SLURM_STEP_NODELIST"]),
            "MASTER_PORT": str(PORTS[int(environment["SLURM_JOB_ID"]) % len(PORTS)]),
        }
    except (KeyError, ValueError, IndexError) as error:
        raise RunError(
            f"cannot parse the variables of this srun task ({type(error).__name__}: {error}): set RANK, LOCAL_RANK, "
            "WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each task yourself"
        ) from None
    return {name: value for name, value in found.items() if name not in environment}


def first_host(nodes: str) -> str:
    """The first host of a Slurm list: gpu003-ib of `gpu[003-007,9]-ib,login1`."""
    found = re.match(r"([^,\[\]]+)(?:\[(\w+)[^\]]*\]([^,\[\]]*))?(?:,|$)", nodes)
    if found is None:
        raise ValueError(f"not a list of hosts: {nodes!r}")
    return "".join(part or "" for part in found.groups())


def tasks_on_node(counts: str, node: int) -> int:
    """Number of tasks on node `node` in a Slurm list such as `8(x3),4`."""
    tasks = []
    for part in counts.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(f"not a list of task counts: {counts!r}")
        tasks += [int(found[1])] * int(found[2] or 1)
    return tasks[node]
