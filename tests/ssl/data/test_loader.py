"""The loader gives the results of a plain loop for any number of threads."""

import random
import subprocess
import sys
import threading
import time

import pytest

from wildfern.ssl.data import Loader


def jittery(step: int) -> int:
    time.sleep(random.random() * 0.002)
    return step * step


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_same_items_in_order(threads):
    with Loader(jittery, 5, 45, threads) as loader:
        assert len(loader) == 40
        assert list(loader) == [step * step for step in range(5, 45)]
        assert loader.total_wait_seconds >= loader.wait_seconds >= 0.0


def test_an_empty_range_is_empty():
    assert list(Loader(jittery, 3, 3, 2)) == []
    assert list(Loader(jittery, 3, 1, 0)) == []


@pytest.mark.parametrize("threads", [0, 3])
def test_an_exception_is_raised_at_its_own_step(threads):
    def read(step: int) -> int:
        if step == 4:
            raise KeyError("four")
        return step

    loader = Loader(read, 0, 10, threads)
    got = [next(loader) for _ in range(4)]
    with pytest.raises(KeyError) as caught:
        next(loader)
    assert got == [0, 1, 2, 3]
    assert "step 4" in caught.value.__notes__[0]
    with pytest.raises(StopIteration):
        next(loader)


def test_prefetching_is_bounded():
    started, gate = [], threading.Event()

    def read(step: int) -> int:
        started.append(step)
        if step > 0:
            gate.wait(10)
        return step

    with Loader(read, 0, 100, threads=2, prefetch=3) as loader:
        assert next(loader) == 0
        assert len(loader._queue) == 5
        gate.set()
        assert next(loader) == 1
    assert max(started) <= 1 + 2 + 3


def test_closing_drops_pending_steps():
    done = []
    loader = Loader(lambda step: (time.sleep(0.01), done.append(step)), 0, 1000, threads=1, prefetch=50)
    next(loader)
    loader.close()
    after = len(done)
    assert after < 10
    time.sleep(0.05)
    assert len(done) == after
    with pytest.raises(StopIteration):
        next(loader)


def test_an_open_loader_does_not_delay_the_exit_of_the_program():
    program = (
        "import time\nfrom wildfern.ssl.data.loader import Loader\n"
        "loader = Loader(lambda step: time.sleep(0.01) or step, 0, 10**9, 2)\nprint(next(loader))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "0\n", "")


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="threads"):
        Loader(jittery, 0, 1, -1)
