"""How many threads torch gets: those that the user asks for, else the CPU cores that this process may use.

Not the load: results depend on the number of threads in their last digits, and two runs must write the same metrics.
"""

import os
from collections.abc import Mapping

import torch

from wildfern.ssl.tracking.cpu_cores import cores_allowed, cores_of_machine, cores_of_quota, load

BUSY = 0.75  # of the machine's cores, taken by others


def set_threads(wanted: int | None, local: int = 1) -> list[str]:
    """Set torch's threads for one of `local` processes on this host; returns what to say about it.

    `wanted` wins, then OMP_NUM_THREADS, then torch's own number within affinity, quota and the share of the process.
    """
    chosen, why = (wanted, "") if wanted is not None else fair_threads(local, os.environ, torch.get_num_threads())
    if chosen is not None:
        torch.set_num_threads(chosen)
    return [text for text in (why, busy(torch.get_num_threads(), load())) if text]


def fair_threads(local: int, environment: Mapping[str, str], threads: int) -> tuple[int | None, str]:
    """Threads for one of `local` processes, and one line that says why they are fewer than the cores of the machine.

    None to leave torch as it is: where OMP_NUM_THREADS is set, or nothing limits it. `threads` is what torch would use, often
    one for each physical core.
    """
    if environment.get("OMP_NUM_THREADS"):
        return None, ""
    cores, allowed, quota = cores_of_machine(), cores_allowed(), cores_of_quota()
    whole = cores if quota is None else max(1, int(quota))
    # A launcher may have set the affinity of each process, or of none; a quota is that of all processes together.
    share = max(1, min(cores // local, allowed, whole // local))
    chosen = min(threads, share) if local == 1 else share
    reasons = []
    if quota is not None and whole < min(cores, allowed):
        reasons.append(f"the container's quota is {quota:g} cores")
    if allowed < cores and allowed <= whole:
        reasons.append(f"the CPU affinity of this process has {allowed}")
    if local > 1 and chosen < min(allowed, whole):
        reasons.append(f"{local} ranks share this host")
    same = local == 1 and chosen == threads  # then torch is left as it is: setting its number has side effects in MKL
    return (
        None if same else chosen,
        f"torch uses {chosen} of {cores} CPU cores: {', '.join(reasons)}" if reasons else "",
    )


def busy(threads: int, loaded: float | None) -> str:
    """Advice if others keep the machine so busy that threads would wait for each other; else empty."""
    cores = cores_of_machine()
    if threads == 1 or loaded is None or loaded - 1 < BUSY * cores:  # this process itself has been one of them
        return ""
    return (
        f"other programs keep this machine busy (load {loaded:.1f} on {cores} CPU cores): {threads} threads may wait for each "
        "other; training.threads=1, or OMP_NUM_THREADS=1, is then often faster"
    )
