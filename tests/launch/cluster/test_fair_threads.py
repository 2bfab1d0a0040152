"""Processes on one host share its cores."""

import os

import pytest

from wildfern.launch.cluster.distributed import fair_threads


@pytest.mark.parametrize(
    ("cores", "allowed", "local", "threads"),
    [(64, 64, 8, 8), (64, 4, 8, 4), (64, 16, 2, 16), (2, 2, 4, 1), (None, 1, 2, 1), (64, None, 4, 16)],
)
def test_a_share_of_the_cores_within_what_is_allowed(cores, allowed, local, threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    if allowed is None:  # as on macOS and Windows
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    assert fair_threads(local, {}) == threads
    assert fair_threads(local, {"OMP_NUM_THREADS": ""}) == threads


def test_omp_num_threads_of_the_user_is_kept():
    assert fair_threads(2, {"OMP_NUM_THREADS": "3"}) is None
