"""What Slurm's `srun` tells each task, in the words that torch and DeepSpeed read: no launcher is needed below it."""

import re
from collections.abc import Mapping

from wildfern.launch.run_folder import RunError

PORTS = range(15_000, 25_000)  # below those that systems hand out to programs that ask for any


def launcher_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT of a task of `srun`; empty elsewhere.

    Whatever the environment has already stays as it is, and a launcher that has set RANK is left alone. The master is the
    first host of the step, its port follows from the number of the job. Raises RunError where Slurm's variables are not
    understood.
    """
    # Batch scripts themselves have SLURM_PROCID and SLURM_NTASKS too; only the tasks of a step have its number of tasks.
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
            f"this is a task of srun, but its variables are not understood ({type(error).__name__}: {error}): set RANK, "
            "LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each task yourself"
        ) from None
    return {name: value for name, value in found.items() if name not in environment}


def first_host(nodes: str) -> str:
    """The first name of a list such as `gpu[003-007,9]-ib,login1`: gpu003-ib."""
    found = re.match(r"([^,\[\]]+)(?:\[(\w+)[^\]]*\]([^,\[\]]*))?(?:,|$)", nodes)
    if found is None:
        raise ValueError(f"no list of hosts: {nodes!r}")
    return "".join(part or "" for part in found.groups())


def tasks_on_node(counts: str, node: int) -> int:
    """How many tasks node number `node` has, from a list such as `8(x3),4`."""
    spread = []
    for part in counts.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(f"no counts of tasks: {counts!r}")
        spread += [int(found[1])] * int(found[2] or 1)
    return spread[node]
