import sys

import numpy as np
import pytest
from small_onnx import model, node, tensor, value_info

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.network_runner import open_network, runner_name

PACKAGES = {"onnxruntime": "onnxruntime", "opencv": "cv2"}
HALVED = model(
    [node("Mul", ["image", "half"], "b"), node("Relu", ["image"], "a")],
    [value_info("image", (1, 3, 4, 5))],
    [value_info("b", (1, 3, 4, 5)), value_info("a", (1, 3, 4, 5))],
    [tensor("half", np.full((1,), 0.5, np.float32))],
)


@pytest.fixture(params=PACKAGES)
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each package as if it were the only one."""
    pytest.importorskip(PACKAGES[request.param], reason="needs the extra `people`")
    for name, package in PACKAGES.items():
        if name != request.param:
            monkeypatch.setitem(sys.modules, package, None)
    return request.param


def test_the_runner_and_its_version_are_named(runner):
    name, version = runner_name().split()
    assert name == runner
    assert version == sys.modules[PACKAGES[runner]].__version__


def test_outputs_come_in_the_order_of_the_file(runner):
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    halved, positive = open_network(HALVED, "halved.onnx")(image)
    np.testing.assert_array_equal(halved, image / 2)
    np.testing.assert_array_equal(positive, np.maximum(image, 0))


def test_networks_run_on_one_thread(runner, monkeypatch):
    package = sys.modules[PACKAGES[runner]]
    if runner == "opencv":
        package.setNumThreads(4)
        open_network(HALVED, "halved.onnx")
        assert package.getNumThreads() == 1
        return
    opened = []
    session = package.InferenceSession
    monkeypatch.setattr(package, "InferenceSession", lambda *a, **b: opened.append(session(*a, **b)) or opened[-1])
    open_network(HALVED, "halved.onnx")
    options = opened[0].get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_a_damaged_network_is_an_error_that_names_the_file_and_the_runner(runner):
    with pytest.raises(CurationError, match=rf"mine\.onnx: {runner} .* cannot open this network"):
        open_network(HALVED[:-20], "mine.onnx")


def test_an_input_that_does_not_fit_is_an_error_of_the_file():
    pytest.importorskip("onnxruntime", reason="needs the extra `people`; opencv adapts to other sizes")
    with pytest.raises(CurationError, match=r"mine\.onnx: onnxruntime .* cannot run this network"):
        open_network(HALVED, "mine.onnx")(np.zeros((1, 3, 9, 9), np.float32))


def test_without_any_runner_the_error_says_what_to_install(monkeypatch):
    for package in PACKAGES.values():
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CurationError, match=r'pip install "wildfern\[people\]"'):
        runner_name()
