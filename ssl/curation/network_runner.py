"""Runs a network from an ONNX file on one thread, with onnxruntime, or OpenCV where that is not installed."""

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.onnx_graph import read_graph

Network = Callable[[NDArray[np.float32]], list[NDArray[Any]]]  # float32[1, 3, H, W] to all outputs, in the file's order


def runner_name() -> str:
    """What runs networks here, with its version: "onnxruntime 1.20.1". Raises CurationError where neither is installed."""
    module = _runner()
    return f"{'opencv' if module.__name__ == 'cv2' else module.__name__} {module.__version__}"


def open_network(model: bytes, name: str) -> Network:
    """A network with one input, ready to run. `name` is that of its file, for errors, all of which are CurationError.

    Networks run on one thread each: images are checked in several processes at once. OpenCV knows only one number of threads,
    that of the whole process, which is set to 1.
    """
    module = _runner()
    opened = _with_opencv if module.__name__ == "cv2" else _with_onnxruntime
    run = _told(name, "open", lambda: opened(module, model))
    return lambda image: _told(name, "run", lambda: run(image))


def _runner() -> Any:
    problems = []
    for package in ("onnxruntime", "cv2"):
        try:
            return import_module(package)
        except ImportError as error:  # also an OpenCV with windows where there is no display library
            problems.append(str(error))
    raise CurationError(
        'people.detector needs a package that runs networks: pip install "wildfern[people]", or onnxruntime or '
        f"opencv-python-headless alone ({'; '.join(problems)})"
    )


def _with_onnxruntime(onnxruntime: Any, model: bytes) -> Network:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it is for inputs of one size
    options.log_severity_level = 3  # errors, which are raised too
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    return lambda image: session.run(None, {entry: image})


def _with_opencv(cv2: Any, model: bytes) -> Network:
    cv2.setNumThreads(1)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    outputs = [value.name for value in read_graph(model).outputs]

    one_at_a_time = threading.Lock()  # input and outputs are the network's own

    def run(image: NDArray[np.float32]) -> list[NDArray[Any]]:
        with one_at_a_time:
            network.setInput(image)
            return list(network.forward(outputs))

    return run


def _told(name: str, what: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:  # both have exceptions of their own, which derive from nothing narrower
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CurationError(f"{name}: {runner_name()} cannot {what} this network: {message}") from error
