"""The start time of this process, from which the time to the first step is counted."""

import os
import time
from pathlib import Path


def process_start() -> float:
    """The start of this process on `time.perf_counter`, including interpreter start-up, on Linux; elsewhere, now."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return time.perf_counter()
    ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, starttime: the name before it may hold spaces
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.perf_counter() - age
