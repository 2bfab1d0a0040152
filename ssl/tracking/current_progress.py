"""The display of the command that is running: for work deep inside it that takes long, such as the scan of a folder.

Only for displays: results do not depend on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .progress import SILENT, Progress

_current: ContextVar[Progress] = ContextVar("current_progress", default=SILENT)


@contextmanager
def shown_by(progress: Progress) -> Iterator[None]:
    """What runs inside the block, in this thread, shows its details and counts as those of the present part of `progress`."""
    token = _current.set(progress)
    try:
        yield
    finally:
        _current.reset(token)


def current_progress() -> Progress:
    """The display of `shown_by`; outside of it, one that shows nothing."""
    return _current.get()
