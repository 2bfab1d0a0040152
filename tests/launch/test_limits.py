"""Memory, files and threads that ran out: one line, what to do, exit code 1."""

import errno

import pytest
import torch

from wildfern.launch.exit_codes import explained
from wildfern.launch.limits import reached_limit


def caused(cause):
    error = RuntimeError("cannot go on")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory ran out: "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "training.batch_size"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory ran out"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "memory of the GPU ran out: set a smaller",
        ),
        (OSError(errno.EMFILE, "Too many open files", "a.png"), "a.png: Too many open files: this process may have"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (caused(MemoryError("no")), "memory ran out"),
    ],
)
def test_what_ran_out_is_said(error, words):
    code, message = explained(error)
    assert code == 1
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), OSError(2, "no", "f")])
def test_other_errors_are_no_limits(error):
    assert reached_limit(error) is None


def test_the_limit_of_addresses_is_named(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (4 << 30, 8 << 30))
    assert "this process may use 4 GiB (ulimit -v)" in reached_limit(MemoryError())
    assert "at most 4,294,967,296 bytes to a file (ulimit -f)" in reached_limit(
        OSError(errno.EFBIG, "File too large", "f")
    )
    assert "memory ran out" in reached_limit(SystemError("error return without exception set"))
