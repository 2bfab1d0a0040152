"""Indexes of shards and copies of parquet columns, made by real processes: at the same time, and killed midway."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from tar_bytes import member, png

from wildfern.ssl.data import open_source

IMAGES = 40
ORDER = np.random.default_rng(0).permutation(IMAGES)

# Opens the source argv[1] after a line on stdin, and prints "built" for each index or copy that it makes, and what it read. With
# the word argv[2], `slow`, building takes a second; with `stuck` it prints "halfway" in the middle, and goes no further.
PROGRAM = f"""
import hashlib, sys, time
from contextlib import contextmanager
import numpy as np
from wildfern.ssl.data import index_file, open_source, shard_table, unpacked_rows

name, pace = sys.argv[1:]
shard_table.KEPT_FROM, shard_table._LEAST_BYTES, shard_table._RECENT = 5, 512, -(10**12)

def stop():
    if pace == "stuck":
        print("halfway", flush=True)
        time.sleep(600)
    time.sleep(1.0)

read_headers, replacing = shard_table._read_headers, index_file.replacing

def built_headers(*arguments):
    print("built")
    return read_headers(*arguments)

@contextmanager
def slow_replacing(path):
    with replacing(path) as beside:
        yield beside
        stop()

class SlowRows(unpacked_rows.UnpackedRows):
    def _all_cells(self, what):
        print("built")
        for number, cells in enumerate(super()._all_cells(what)):
            yield cells
            if number == 1:
                stop()

shard_table._read_headers, index_file.replacing = built_headers, slow_replacing
from wildfern.ssl.data import parquet
parquet.UnpackedRows = SlowRows
print("ready", flush=True)
sys.stdin.readline()
source = open_source(name, **({{"memory_gb": 0}} if name.startswith("parquet:") else {{}}))
order = np.random.default_rng(0).permutation({IMAGES})
print(source.read(order).pixels[:, 0, 0, 0].tolist(), source.labels.tolist(), source.class_names)
"""


@pytest.fixture(params=["webdataset", "parquet"])
def name(request, tmp_path, monkeypatch) -> str:
    """A source of labeled images, with an empty cache folder."""
    monkeypatch.setenv("WILDFERN_CACHE", str(tmp_path / "cache"))
    if request.param == "parquet":
        table = pa.table({"image": [png(value) for value in range(IMAGES)], "label": [v % 3 for v in range(IMAGES)]})
        parquet.write_table(table, tmp_path / "train.parquet", row_group_size=7)
        return f"parquet:{tmp_path}/train.parquet"
    for shard in range(4):
        numbers = range(shard, IMAGES, 4)
        parts = (member(b"%02d.png" % v, png(v)) + member(b"%02d.cls" % v, b"%d" % (v % 3)) for v in numbers)
        (tmp_path / f"{shard}.tar").write_bytes(b"".join(parts))
    return f"webdataset:{tmp_path}/{{0..3}}.tar"


def started(name: str, pace: str, count: int = 1) -> list[subprocess.Popen]:
    """Processes that open the source at the same time."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", PROGRAM, name, pace]
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(count)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * count
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


def printed(process: subprocess.Popen) -> list[str]:
    """The lines that a process printed, which ends without an error."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def expected(name: str) -> str:
    """The line of what is read without an index or copy."""
    source = open_source(name, **({"index": False} if name.startswith("webdataset:") else {"disk_gb": 0}))
    return f"{source.read(ORDER).pixels[:, 0, 0, 0].tolist()} {source.labels.tolist()} {source.class_names}"


def kept() -> list[Path]:
    """The files of the cache folder but those that are locked while others are made."""
    found = [path for path in Path(os.environ["WILDFERN_CACHE"]).rglob("*") if path.is_file()]
    return [path for path in found if path.suffix != ".lock"]


def test_two_processes_that_open_the_same_data_make_one_file(name):
    lines = [printed(process) for process in started(name, "slow", count=2)]
    assert sorted(map(len, lines)) == [1, 2]
    assert {found[-1] for found in lines} == {expected(name)}
    assert sum(found[0] == "built" for found in lines) == 1
    (file,) = kept()
    assert file.suffix == (".index" if name.startswith("webdataset:") else ".column")
    (later,) = started(name, "slow")
    assert printed(later) == [expected(name)]  # from that file
    assert kept() == [file]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_what_a_killed_process_left_is_removed_by_the_next_one(name):
    (process,) = started(name, "stuck")
    assert [process.stdout.readline() for _ in range(2)] == ["built\n", "halfway\n"]
    (waiting,) = started(name, "slow")
    (left,) = kept()
    assert left.name.startswith(".partial_")
    time.sleep(0.5)
    assert kept() == [left]  # the other process waits
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert printed(waiting) == ["built", expected(name)]
    (file,) = kept()
    assert file.suffix == (".index" if name.startswith("webdataset:") else ".column")
    assert left.name.endswith(file.name)
