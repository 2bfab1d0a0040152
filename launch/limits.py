"""Limits of the system that a command ran into (memory, files, threads), and what to do about each, in one line."""

import errno
from collections.abc import Iterator

try:
    import resource  # now: when memory has run out, it cannot be loaded
except ImportError:  # Windows
    resource = None

LESS = "set a smaller training.batch_size, or a larger training.accumulation (the same batch in smaller parts)"
OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "failed to map segment",
    "unable to allocate",
    "unable to mmap",
)


def reached_limit(error: BaseException) -> str | None:
    """What ran out, and what to do, if this error or one that led to it says so; else None."""
    for one in _chain(error):
        if words := _memory(one) or _files(one) or _threads(one):
            return words
    return None


def limit_of_files(number: int | None) -> str:
    """For the errno of a failed write or open: ": " and the limit of this process that is behind it; empty if none is."""
    if number == errno.EFBIG and (most := _limit("RLIMIT_FSIZE")) is not None:
        return f": this process may write at most {most:,} bytes to a file (ulimit -f): raise the limit"
    if number == errno.EMFILE and (most := _limit("RLIMIT_NOFILE")) is not None:
        return (
            f": this process may have {most:,} open at a time (ulimit -n): raise the limit, for example ulimit -n 4096"
        )
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen and len(seen) < 20:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _memory(error: BaseException) -> str | None:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = " ".join(lines).lower()
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return f"the memory of the GPU ran out: {LESS}; `wildfern plan` estimates the need ({lines[0]})"
    told = isinstance(error, RuntimeError | ImportError | SystemError) and any(words in text for words in OUT_OF_MEMORY)
    told = told or (isinstance(error, SystemError) and _limit("RLIMIT_AS") is not None)  # an import without memory
    if not (told or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM):
        return None
    most = _limit("RLIMIT_AS")
    if isinstance(error, ImportError) and most is not None:
        most_gib = f"{most / 2**30:.3g} GiB"
        return f"a library cannot be loaded in the {most_gib} that this process may use (ulimit -v): raise the limit ({lines[0]})"
    remedy = f"{LESS} or fewer training.loader_threads, or use a machine with more memory"
    if most is not None:
        remedy = f"this process may use {most / 2**30:.3g} GiB (ulimit -v): raise the limit, or {LESS}"
    return f"memory ran out: {remedy} ({lines[0]})"


def _files(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or not (limit := limit_of_files(error.errno)):
        return None
    name = "" if error.filename is None else f"{error.filename}: "
    return f"{name}{error.strerror}{limit}"


def _threads(error: BaseException) -> str | None:
    if "can't start new thread" not in str(error) and getattr(error, "errno", None) != errno.EAGAIN:
        return None
    most = _limit("RLIMIT_NPROC")
    number = "" if most is None else f" {most:,}"
    return (
        f"the system starts no more threads or processes for this user ({error}): raise the limit{number} of ulimit -u, or that "
        "of the container (pids), or set fewer training.loader_threads"
    )


def _limit(name: str) -> int | None:
    """The soft limit of this process; None without one."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft
