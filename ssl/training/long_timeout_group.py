"""Waiting for another process as long as it takes: a group whose collectives outlast downloads, scans and evaluations.

Who died is the heartbeat's to notice, not this group's.
"""

from datetime import timedelta

import torch
from torch.distributed import ProcessGroup, new_group

PATIENCE = timedelta(days=7)

_group: ProcessGroup | None = None


def make_long_timeout_group(meeting: timedelta) -> ProcessGroup:
    """A gloo group of all processes; called on every rank, once after each start of the default group.

    They must meet for it within the time `meeting`, for nobody listens to a heartbeat yet: else raises RuntimeError.
    """
    global _group
    _group = new_group(backend="gloo", timeout=meeting)
    _group._get_backend(torch.device("cpu"))._set_default_timeout(PATIENCE)
    return _group


def long_timeout_group() -> ProcessGroup:
    """The group that `make_long_timeout_group` made last."""
    if _group is None:
        raise RuntimeError("make_long_timeout_group was not called in this process")
    return _group
