"""Torch's threads: affinity, quota and the other processes of a host; the load only gives advice."""

import os

import pytest
import torch

from wildfern.launch import threads as module
from wildfern.launch.threads import busy, fair_threads, set_threads


@pytest.fixture
def machine(monkeypatch):
    def make(cores, allowed, quota):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        if allowed is None:  # as on macOS and Windows
            monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        else:
            monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
        monkeypatch.setattr(module, "cores_of_quota", lambda: quota)

    return make


@pytest.mark.parametrize(
    ("cores", "allowed", "quota", "local", "threads"),
    [
        (64, 64, None, 8, 8),
        (64, 4, None, 8, 4),
        (64, 16, None, 2, 16),
        (2, 2, None, 4, 1),
        (None, 1, None, 2, 1),
        (64, None, None, 4, 16),
        (64, 64, 8.0, 4, 2),
        (64, 64, 2.0, 4, 1),
        (8, 8, 2.5, 1, 2),
        (8, 8, 0.5, 1, 1),
    ],
)
def test_a_share_of_the_cores_within_what_is_allowed(cores, allowed, quota, local, threads, machine):
    machine(cores, allowed, quota)
    assert fair_threads(local, {}, 64)[0] == threads
    assert fair_threads(local, {"OMP_NUM_THREADS": ""}, 64)[0] == threads


def test_torch_is_left_as_it_is_without_a_limit(machine):
    machine(8, 8, None)
    assert fair_threads(1, {}, 4) == (None, "")
    assert fair_threads(2, {"OMP_NUM_THREADS": "3"}, 4) == (None, "")


@pytest.mark.parametrize(
    ("cores", "allowed", "quota", "local", "words"),
    [
        (8, 8, 2.0, 1, "torch uses 2 of 8 CPU cores: the container's quota is 2 cores"),
        (8, 4, None, 1, "torch uses 4 of 8 CPU cores: the CPU affinity of this process has 4"),
        (8, 8, None, 2, "torch uses 4 of 8 CPU cores: 2 ranks share this host"),
        (8, 8, 4.0, 2, "torch uses 2 of 8 CPU cores: the container's quota is 4 cores, 2 ranks share this host"),
        (8, 2, 4.0, 1, "torch uses 2 of 8 CPU cores: the CPU affinity of this process has 2"),
        (8, 8, 16.0, 1, ""),
    ],
)
def test_the_reason_is_said_if_not_all_cores_are_used(cores, allowed, quota, local, words, machine):
    machine(cores, allowed, quota)
    assert fair_threads(local, {}, 8)[1] == words


def test_what_the_user_asks_for_wins(machine, monkeypatch):
    machine(8, 8, 2.0)
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(module, "load", lambda: 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert set_threads(7) == []
    assert set_threads(None) == []
    assert given == [7]


@pytest.mark.parametrize(
    ("threads", "load", "warned"), [(4, 8.5, True), (4, 7.0, True), (4, 6.9, False), (1, 30.0, False), (4, None, False)]
)
def test_load_of_others_gives_advice_only(threads, load, warned, machine):
    machine(8, 8, None)
    assert ("training.threads=1" in busy(threads, load)) == warned
