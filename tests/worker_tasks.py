"""Tasks for the processes of the tests of curation, which import them by the name of this file."""

import os
import threading
import time
import warnings


def square(x: int) -> tuple[int, int]:
    time.sleep(0.002 * (x % 3))  # later tasks may be ready first
    return x * x, os.getpid()


def failing(x: int) -> int:
    if x == 5:
        raise ValueError("five")
    return x


def ending(x: int) -> int:
    if x == 3:
        os._exit(9)
    return x


def warn(_: int) -> str | None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn_explicit("damaged EXIF", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
    return str(caught[0].message) if caught else None


def thread_name(_: int) -> str:
    return threading.current_thread().name
