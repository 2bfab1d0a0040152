"""A sharded network computes what the whole one does, and each rank holds its part only."""

import sys

import pytest
from forked_ranks import two_ranks_of
from sharded_teacher_ranks import worker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo between processes is tested on Linux and macOS")


def test_two_ranks_hold_half_each_and_compute_the_same(tmp_path):
    for found in two_ranks_of(worker, tmp_path):
        shares = [found.pop(name) for name in list(found) if name.endswith("share")]
        assert all(0.4 < share < 0.6 for share in shares)
        assert len(found) == 10
        assert [name for name, good in found.items() if not good] == []
