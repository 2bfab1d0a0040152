"""A process group with a timeout long enough for downloads, scans and evaluations.

The launcher's heartbeat, not this timeout, detects a lost rank.
"""

from datetime import timedelta

import torch
from torch.distributed import ProcessGroup, new_group

LONG_TIMEOUT = timedelta(days=7)

_group: ProcessGroup | None = None


def make_long_timeout_group(join_timeout: timedelta) -> ProcessGroup:
    """A gloo group of all ranks; called on every rank, once after each initialization of the default group.

    Raises RuntimeError if a rank does not join within `join_timeout`, since the heartbeat is not running yet.
    """
    global _group
    _group = new_group(backend="gloo", timeout=join_timeout)
    _group._get_backend(torch.device("cpu"))._set_default_timeout(LONG_TIMEOUT)
    return _group


def long_timeout_group() -> ProcessGroup:
    """The group that `make_long_timeout_group` made last."""
    if _group is None:
        raise RuntimeError("make_long_timeout_group was not called in this process")
    return _group
