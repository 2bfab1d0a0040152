"""Hosts with other versions of a package are refused at the start, on every rank, by name."""

import sys
from pathlib import Path

import pytest
from forked_runs import ForkedRun
from small_runs import TINY

from wildfern.launch.cluster.versions import check_same_versions, installed_versions
from wildfern.launch.errors import RunError


def on_other_hosts(*changes):
    """An all_gather in which every other rank is on another host, whose versions differ by `changes`."""
    return lambda own: [("a", own[1]), *((host, own[1] | change) for host, change in zip("bcd", changes, strict=False))]


def test_equal_versions_pass():
    check_same_versions(on_other_hosts({}, {}))


def test_every_difference_is_named_with_both_hosts():
    torch = installed_versions()["torch"]
    with pytest.raises(RunError) as error:
        check_same_versions(on_other_hosts({}, {"torch": "1.0"}, {"deepspeed": "missing", "torch": "1.0"}))
    text = str(error.value)
    assert text.startswith("install the same versions on every host: ")
    assert f"c has torch 1.0, a has {torch}" in text
    assert f"d has torch 1.0, a has {torch}" in text
    assert "d has deepspeed missing, a has " in text
    assert "b has" not in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="deepspeed is for Linux")
def test_ranks_of_a_run_are_compared_at_its_start(tmp_path, monkeypatch):
    """Rank 1 finds another kornia: a metadata folder of that version comes first on its path."""
    metadata = tmp_path / "site" / "kornia-0.0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kornia\nVersion: 0.0.1\n")
    run: Path = tmp_path / "run"
    changes = [*TINY, "training.steps=2", "engine={name: deepspeed, timeout_minutes: 1}"]
    started = ForkedRun(run, changes, processes=2, first_on_path={1: metadata.parent})
    assert started.wait() == 2, started.output()
    assert started.processes[1].exitcode == 2
    assert started.output().count("has kornia 0.0.1, ") == 2
    assert not run.exists()
