"""When this program was started: what the time to the first step is counted from."""

import os
import time
from pathlib import Path


def process_start() -> float:
    """The start of this process on the clock of `time.perf_counter`; the interpreter's own start-up is in it on Linux.

    Elsewhere no clock of the standard library tells, and it is the time of this call.
    """
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return time.perf_counter()
    ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, starttime: the name before it may hold spaces
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.perf_counter() - age
