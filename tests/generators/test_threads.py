"""The thread pool: each part runs once, the caller works too, errors propagate, copies and forked processes get new threads."""

import multiprocessing
import pickle
import threading

import pytest

from wildfern.generators.threads import Threads


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_part_is_done_once(count, parts):
    done = []
    Threads(count, "test").share(parts, done.append)
    assert sorted(done) == list(range(parts))


def test_parts_run_in_parallel_and_the_caller_works_too():
    meeting, seen = threading.Barrier(3, timeout=20), set()

    def meet(part):
        meeting.wait()
        seen.add(threading.current_thread())

    Threads(3, "test").share(3, meet)
    assert len(seen) == 3
    assert threading.current_thread() in seen


@pytest.mark.parametrize("bad", range(6))
def test_an_error_propagates_and_stops_the_others(bad):
    threads, done = Threads(2, "test"), []

    def work(part):
        if part == bad:
            raise IndexError(f"part {part}")
        done.append(part)

    with pytest.raises(IndexError, match=f"part {bad}"):
        threads.share(1000, work)
    assert len(done) < 999
    threads.share(4, done.append)
    assert sorted(done[-4:]) == [0, 1, 2, 3]


def test_nested_calls_and_copies_work():
    threads, done = Threads(2, "test"), []
    threads.share(4, lambda part: threads.share(2, lambda inner: done.append((part, inner))))
    assert sorted(done) == [(part, inner) for part in range(4) for inner in range(2)]
    pickle.loads(pickle.dumps(threads)).share(3, done.append)
    assert len(done) == 11


def _share_in_child(threads, connection):
    done = []
    threads.share(10, done.append)
    connection.send(sorted(done))


def test_a_forked_process_starts_its_own_threads():
    threads = Threads(2, "test")
    threads.share(4, lambda part: None)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_share_in_child, args=(threads, there))
    child.start()
    assert here.poll(20)
    assert here.recv() == list(range(10))
    child.join(20)
