"""Kernels are compiled by other processes while this one starts."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import typeof

from wildfern.generators import STREAMS, compiling
from wildfern.launch import compile_ahead as ahead
from wildfern.recipes import likely_sources
from wildfern.ssl.augmentation import host_kernel, host_views, simclr


@pytest.fixture
def started(monkeypatch):
    """The names of the processes that are started instead of starting them."""
    names = []
    monkeypatch.setattr(ahead, "cpu_cores", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: names.append(command[-1]))
    monkeypatch.setattr(compiling, "compiled_elsewhere", set())
    return names


def test_nothing_is_started_for_kernels_in_the_cache(started, capsys):
    STREAMS["ifs"](size=32).batch(np.arange(1))
    ahead.compile_ahead("quickstart", [])
    assert started == []
    assert capsys.readouterr().err == ""


def test_missing_kernels_are_compiled_and_said(started, capsys, monkeypatch):
    monkeypatch.setattr(compiling.Kernel, "to_be_cached", lambda self: True)
    ahead.compile_ahead("quickstart", ["data.source=contours"])
    assert started == ["contours", "ifs", "views"]
    assert compiling.compiled_elsewhere == {"contours", "fractals", "views"}
    assert "compiling contours and fractals and views for this machine" in capsys.readouterr().err


def test_one_core_compiles_by_itself(started, monkeypatch):
    monkeypatch.setattr(compiling.Kernel, "to_be_cached", lambda self: True)
    monkeypatch.setattr(ahead, "cpu_cores", lambda: 1)
    ahead.compile_ahead("quickstart", [])
    assert started == []


def test_likely_sources_are_found_without_checking(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: mix_folder_and_ifs\nmodel: {backbone: 7}\n")
    assert likely_sources(own, []) == ["folder:images", "ifs"]
    assert likely_sources("quickstart", ["training.steps=2", "data.source=texture"]) == ["texture", "ifs"]
    assert likely_sources("nothing_of_this_name", []) == []
    own.write_text("data: [")
    assert likely_sources(own, []) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_example_of_the_views_has_the_types_of_every_call(monkeypatch, dtype):
    seen = []

    def noting(*arguments):
        seen.append(tuple(map(typeof, arguments)))

    monkeypatch.setattr(host_kernel, "render_slice", noting)
    host_kernel.render_example()
    monkeypatch.setattr(host_views, "render_slice", noting)
    table = simclr(size=8).draw(0, 0, np.arange(2))[0]
    host_views.render_views(np.zeros((2, 9, 9, 3), np.uint8), table, 8, 1, dtype)
    assert len(seen) == 2
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_the_processes_fill_the_cache_of_the_others(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for name in ("views", "spectrum"):
        command = [sys.executable, "-m", "wildfern.launch.compile_ahead", name]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    program = (
        "import numpy as np\n"
        "from wildfern.generators import make_stream\n"
        "from wildfern.ssl.augmentation import host_kernel\n"
        "host_kernel.render_example()\n"
        "make_stream('spectrum', size=64).batch(np.arange(2))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
