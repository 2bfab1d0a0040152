"""The GPU renderer against the CPU: kernels in Triton's interpreter, their machine code, and, where there is one, on a GPU.

Everywhere the images must be equal, not nearly so. Both sides get the same numbers from the same draws and do the same
additions, multiplications and divisions, each rounded as IEEE 754 has it; the compile tests see to it that none is fused.
"""

import json
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from wildfern.generators import make_stream

pytest.importorskip("triton", reason="the GPU renderer is written in triton")

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from wildfern.generators.triton_renderer import gpu, renderer

ROOMY = 2**29
TINY = {"size": 12, "points": 150}


def case(stream, indices, memory=ROOMY, **arguments):
    return {"stream": stream, "indices": indices, "memory": memory, "arguments": arguments}


CASES = {
    "plain": case("ifs", [0, 1, 2**62, -3], size=33, points=700),
    "one level less": case("ifs", [4, 5], size=32, points=640, classes=7, seed=9),
    "smallest": case("ifs", [0, 1], size=8, points=1),
    "a full row and one more": case("ifs", [6], size=9, points=65),
    "threads": case("ifs", [3, 8, 5], threads=2, **TINY),
    "part by part": case("ifs", [3, 8, 5], memory=1, **TINY),
    # These systems show too little in one, two, three and all attempts.
    "sparse": case("ifs", [0, 522845, 722100, 1168], size=16, points=130, classes=10**9, maps=(2, 2)),
    "patch": case("ifs", [2, 3], size=20, points=300, render="patch", maps=(2, 8)),
    "binary": case("ifs", [2, 3], render="binary", maps=(5, 8), **TINY),
    "binary, every pixel lit": case(
        "ifs", [234, 2], size=8, points=2000, render="binary", color=False, background=False
    ),
    "no color": case("ifs", [2, 3], color=False, **TINY),
    "no background": case("ifs", [2, 3], background=False, **TINY),
    "no placement": case("ifs", [2, 3], placement=False, **TINY),
    "no blur": case("ifs", [2, 3], blur=False, **TINY),
    "evenly sampled": case("ifs", [2, 3], sampling="uniform", **TINY),
    **{jitter: case("ifs", [1001, 2002], jitter=jitter, **TINY) for jitter in ("sval", "basic", "fractaldb", "none")},
    "scenes": case("ifs_multi", [0, 1, 2], size=40, points=200, classes=50, fractals=(1, 4)),
    "scenes of patches": case("ifs_multi", [7, 8], size=24, points=100, fractals=(2, 2), render="patch", blur=False),
    "pairs": case("ifs_pair", [0, 1, 2], size=24, points=200, classes=40, memory=1),
    "pairs of several": case("ifs_pair", [5, 6], size=16, points=100, classes=40, fractals=(1, 2), sides=(0.5, 3.0)),
}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Arrays of all cases, by "case/field"; rendered by one process, because it takes seconds to start."""
    path = tmp_path_factory.mktemp("interpreted") / "batches.npz"
    program = Path(__file__).with_name("draw_interpreted.py")
    run = subprocess.run(
        [sys.executable, str(program), str(path)], input=json.dumps(CASES), capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return np.load(path)


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_render_what_the_cpu_renders(interpreted, name):
    case = CASES[name]
    expected = make_stream(case["stream"], **case["arguments"]).batch(np.array(case["indices"])).arrays()
    assert {key.split("/")[1] for key in interpreted if key.startswith(f"{name}/")} == {*expected, "shown"}
    for field, array in expected.items():
        drawn = interpreted[f"{name}/{field}"]
        assert drawn.dtype == array.dtype, field
        np.testing.assert_array_equal(drawn, array, err_msg=field)


def test_images_with_too_little_visible_are_rendered_again(interpreted):
    """The number of the four sparse systems accepted before each of the six attempts."""
    assert interpreted["sparse/shown"].tolist() == [0, 1, 2, 3, 3, 3]


class H100:
    """The part of a driver that compilation needs."""

    def get_current_device(self):
        return 1000  # so that nothing compiled here enters the cache of a GPU of this machine

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def machine_code(monkeypatch):
    """Replaces launches by compilation for an H100, without needing one, and collects the results in a list."""
    made = []

    def compile_only(self, kernel, grid, warps, *arguments, **constants):
        made.append(kernel.warmup(*arguments, grid=grid, num_warps=warps, **constants, **renderer.OPTIONS))

    monkeypatch.setattr(gpu, "find_gpu", lambda device: torch.device("cpu"))
    monkeypatch.setattr(renderer.Renderer, "_launch", compile_only)
    monkeypatch.setattr(driver, "_active", H100())
    return made


@pytest.mark.skipif(knobs.runtime.interpret, reason="TRITON_INTERPRET is set: nothing is compiled")
@pytest.mark.parametrize(
    ("name", "arguments", "kernels"),
    [
        ("ifs", {}, 8),
        ("ifs", {"size": 33, "points": 1001, "maps": (2, 2), "render": "patch", "background": False, "blur": False}, 5),
        ("ifs", {"size": 2048, "maps": (2, 8), "render": "binary"}, 8),
        ("ifs_multi", {"size": 100}, 8),
        ("ifs_pair", {"fractals": (1, 2), "render": "patch"}, 9),
    ],
)
def test_every_launch_compiles_for_an_h100_and_fuses_nothing(machine_code, name, arguments, kernels):
    make_stream(name, device="cuda", **arguments).batch(np.arange(2))
    assert len({kernel.metadata.name for kernel in machine_code}) == kernels
    for kernel in machine_code:
        assert len(kernel.asm["cubin"]) > 1000
        assert ".target sm_90" in kernel.asm["ptx"]
        fused = r"\bfma\.|\bdiv\.(full|approx)|\.ftz|\.approx|\.local\."
        assert not re.search(fused, kernel.asm["ptx"]), kernel.metadata.name


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("gpu", 0, "device must be 'cpu', 'cuda' or 'cuda:N', not 'gpu'"),
        ("cuda:", 0, "device must be 'cpu', 'cuda' or 'cuda:N', not 'cuda:'"),
        (None, 0, "device must be 'cpu', 'cuda' or 'cuda:N', not None"),
        ("cuda", 0, r"device='cuda' needs a GPU, and torch finds none"),
        ("cuda:2", 2, r"device='cuda:2' does not exist: this machine has 2 GPU\(s\), numbered from cuda:0"),
    ],
)
@pytest.mark.parametrize("name", ["ifs", "ifs_multi", "ifs_pair"])
def test_missing_devices_are_named_in_the_error(monkeypatch, name, device, gpus, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        make_stream(name, device=device)


def test_the_current_gpu_is_that_of_the_thread(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert gpu.find_gpu("cuda") == torch.device("cuda", 3)
    assert gpu.find_gpu("cuda:1") == torch.device("cuda", 1)


def test_copies_of_a_stream_find_their_own_gpu(monkeypatch, machine_code):
    stream = make_stream("ifs_pair", device="cuda", **TINY)
    stream.batch([0])
    state = pickle.dumps(stream)
    monkeypatch.setattr(gpu, "find_gpu", lambda device: torch.device("meta"))
    copy = pickle.loads(state)
    assert copy.device == "cuda"
    assert stream.batch([0]).images.device.type == "cpu"
    assert copy.batch([0]).images.device.type == "meta"


def test_a_stream_keeps_the_gpu_that_was_current_when_it_was_made(monkeypatch, machine_code):
    current = threading.local()  # as CUDA has it: threads start with the first GPU
    monkeypatch.setattr(gpu, "find_gpu", lambda device: torch.device(getattr(current, "device", "meta")))
    current.device = "cpu"
    stream = make_stream("ifs", device="cuda", **TINY)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stream.batch, [0]).result().images.device.type == "cpu"


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
FULL = [
    ("ifs", {}),
    ("ifs", {"render": "patch", "maps": (2, 8), "jitter": "sval"}),
    ("ifs", {"render": "binary", "color": False, "blur": False}),
    ("ifs", {"size": 65, "points": 5000, "background": False, "placement": False, "sampling": "uniform"}),
    ("ifs", {"size": 16, "points": 130, "classes": 10**9, "maps": (2, 2)}),
    ("ifs_multi", {}),
    ("ifs_pair", {}),
    ("ifs_pair", {"size": 33, "points": 1000, "fractals": (2, 2), "render": "patch"}),
]


@on_a_gpu
@pytest.mark.parametrize(("name", "arguments"), FULL)
def test_a_gpu_renders_what_the_cpu_renders(name, arguments):
    indices = np.array([*range(60), 522845, 722100, 1168, -1])
    drawn, expected = (make_stream(name, device=device, **arguments).batch(indices) for device in ("cuda", "cpu"))
    for field, array in expected.arrays().items():
        given = getattr(drawn, field)
        if field != "labels":
            assert given.device.type == "cuda"
            assert given.dtype == torch.uint8
            given = given.cpu().numpy()
        np.testing.assert_array_equal(given, array, err_msg=field)


@on_a_gpu
def test_threads_streams_and_parts_change_nothing_on_a_gpu(monkeypatch):
    expected = make_stream("ifs", size=64, points=3000).batch(np.arange(64)).images
    stream = make_stream("ifs", size=64, points=3000, threads=3, device="cuda")

    def draw(part):
        with torch.cuda.stream(torch.cuda.Stream()):
            return stream.batch(np.arange(8 * part, 8 * part + 8)).images.cpu().numpy()

    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(np.concatenate(list(pool.map(draw, range(8)))), expected)
    monkeypatch.setattr(renderer, "MEMORY", 2**21)
    np.testing.assert_array_equal(stream.batch(np.arange(64)).images.cpu().numpy(), expected)
