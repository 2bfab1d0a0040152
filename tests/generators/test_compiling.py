"""Kernels: compiled once per machine, by one process at a time, with a progress message."""

import os
import pickle
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest

from wildfern.generators import make_stream

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from slow_square import square
print(square(7.0))
"""
MODULE = """
from wildfern.generators.compiling import kernel

@kernel("squares")
def square(sources):
    def square(x):
        "Square x."
        _ = sources
        return x * x
    return square
"""


def starter(folder):
    """Start a process that calls a kernel whose cache lies in `folder`."""
    (folder / "slow_square.py").write_text(MODULE)

    def start(**environment):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(folder=str(folder))],
            env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def start(tmp_path):
    return starter(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with a complete cache, which every test restores, and the function that starts a process there."""
    folder = tmp_path_factory.mktemp("compiled")
    start = starter(folder)
    start().communicate()
    return folder, start


def test_the_first_process_compiles_with_a_message_and_the_next_one_does_not(start):
    out, words = start().communicate()
    assert out == "49.0\n"
    assert words.startswith("wildfern: compiling squares for this machine (cached for later runs) … ")
    assert start().communicate() == ("49.0\n", "")


def test_processes_that_start_at_once_compile_once(start):
    processes = [start() for _ in range(4)]
    outputs = [process.communicate() for process in processes]
    assert [out for out, _ in outputs] == ["49.0\n"] * 4
    assert sum("compiling" in words for _, words in outputs) == 1


def test_a_change_of_a_neighboring_file_recompiles(start, tmp_path):
    start().communicate()
    (tmp_path / "beside.py").write_text("constant = 1")
    assert "compiling squares" in start().communicate()[1]
    assert start().communicate()[1] == ""
    (tmp_path / "beside.py").write_text("constant = 2")
    assert "compiling squares" in start().communicate()[1]


@pytest.mark.parametrize("damage", [b"", b"\x80\x04nonsense", b"\x80\x04\x8c\x08wildfern\x8c\x04Gone\x93."])
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_an_unreadable_cache_is_recompiled(compiled, ending, damage):
    folder, start = compiled
    (file,) = (folder / "cache").rglob(f"*.{ending}")
    version = pickle.dumps(numba.__version__) if ending == "nbi" else b""
    file.write_bytes(version + damage)
    out, words = start().communicate()
    assert out == "49.0\n"
    assert "compiling squares" in words
    assert start().communicate() == ("49.0\n", "")


def test_without_a_writable_cache_it_compiles_and_says_so():
    """A function without a file, like one in a read-only folder, has no place in numba's cache."""
    command = [sys.executable, "-c", MODULE + "\nprint(square(7.0))"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "49.0\n"
    assert "not cached: no writable cache folder" in run.stderr


def test_kernels_release_the_gil():
    stream = make_stream("ifs", size=64, points=20_000)
    stream.batch([0])
    drawing = threading.Thread(target=stream.batch, args=(np.arange(2000),))
    switching = sys.getswitchinterval()
    drawing.start()
    steps = 0
    while drawing.is_alive():
        steps += 1
        drawing.join(switching)
    assert steps > 3
