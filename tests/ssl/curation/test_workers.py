"""Results in order from threads and processes; errors, and processes that end or lose their main process."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import pytest
from worker_tasks import ending, failing, square, thread_name, warn

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.workers import workers


@pytest.mark.parametrize("processes", [1, 2])
def test_results_are_in_order(processes):
    with workers(processes) as run:
        found = list(run(square, ((n,) for n in range(60))))
    assert [result for result, _ in found] == [n * n for n in range(60)]
    others = {process for _, process in found} - {os.getpid()}
    assert len(others) in ((0,) if processes == 1 else (1, 2))  # one may have done all before the other has started


def test_one_process_has_two_threads_and_no_tasks_are_no_results():
    with workers(1) as run:
        assert list(run(square, iter(()))) == []
        names = set(run(thread_name, ((n,) for n in range(50))))
    assert all("curate" in name for name in names)
    assert len(names) <= 2


def test_few_tasks_are_taken_ahead():
    taken = []

    def tasks():
        for n in range(1000):
            taken.append(n)
            yield (n,)

    with workers(1) as run:
        results = run(square, tasks())
        for n in range(5):
            assert next(results)[0] == n * n
        assert len(taken) <= 5 + 8
        results.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_task_is_raised_and_the_rest_is_dropped(processes):
    done = []

    def run_all() -> None:
        with workers(processes) as run:
            done.extend(run(failing, ((n,) for n in range(100_000))))

    with pytest.raises(ValueError, match="five"):
        run_all()
    assert done == [0, 1, 2, 3, 4]


def test_a_process_that_ends_is_an_error_for_the_user():
    with pytest.raises(CurationError, match="a process that reads images ended"), workers(2) as run:
        list(run(ending, ((n,) for n in range(50))))


def test_ctrl_c_is_raised_as_it_is():
    def run_some() -> None:
        with workers(1) as run:
            for _ in run(square, ((n,) for n in range(100_000))):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_some()


def test_warnings_of_pillow_are_ignored_inside_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with workers(1) as run:
            assert list(run(warn, [(0,)])) == [None]
        assert warn(0) == "damaged EXIF"


def test_processes_end_with_a_main_process_that_is_killed(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent("""
            import os, time
            from wildfern.ssl.curation.workers import workers

            def name(number):
                time.sleep(0.2)
                return os.getpid()

            if __name__ == "__main__":
                with workers(2) as run:
                    results = run(name, ((n,) for n in range(1000)))
                    print(*sorted({next(results) for _ in range(6)}), flush=True)
                    time.sleep(600)
        """)
    )
    main = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    children = [int(word) for word in main.stdout.readline().split()]
    assert children
    main.send_signal(signal.SIGKILL)
    main.wait()
    main.stdout.close()
    waited = time.monotonic() + 30
    while (left := [child for child in children if is_running(child)]) and time.monotonic() < waited:
        time.sleep(0.05)
    for child in left:
        os.kill(child, signal.SIGKILL)
    assert left == []


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
