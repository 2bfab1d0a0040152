import numpy as np
import pytest
from small_onnx import model, node, red_cells, tensor, value_info

from wildfern.ssl.curation.onnx_graph import FLOAT, Value, read_graph, with_free_sizes

WEIGHT = np.ones((4, 3, 1, 1), np.float32)


def convolution(listed: bool = False, external: bool = False) -> bytes:
    """A 1 x 1 convolution exported for images of 32 x 48, with or without its weight among the inputs."""
    inputs = [value_info("image", (10, 3, 32, 48))] + [value_info("weight", WEIGHT.shape)] * listed
    return model(
        [node("Conv", ["image", "weight"], "out")],
        inputs,
        [value_info("out", (10, 4, 32, 48))],
        [tensor("weight", WEIGHT, external)],
    )


@pytest.mark.parametrize("listed", [False, True])
def test_inputs_and_outputs_are_read_and_weights_are_no_inputs(listed):
    graph = read_graph(convolution(listed))
    assert graph.inputs == [Value("image", FLOAT, (10, 3, 32, 48))]
    assert graph.outputs == [Value("out", FLOAT, (10, 4, 32, 48))]
    assert not graph.external


def test_free_sizes_data_types_and_the_order_of_outputs_are_read():
    graph = read_graph(red_cells(layout="boxes", free=True))
    assert graph.inputs == [Value("image", FLOAT, (None, 3, None, None))]
    assert [(value.name, value.element, value.shape) for value in graph.outputs] == [
        ("boxes", FLOAT, (1, 64, 4)),
        ("scores", FLOAT, (1, 64)),
        ("classes", 7, (1, 64)),
    ]


def test_sizes_of_zero_are_free():
    unknown = model([], [value_info("image", (0, 3, 5, 5))], [value_info("out", ())])
    assert read_graph(unknown).inputs[0].shape == (None, 3, 5, 5)


def test_weights_in_a_second_file_are_noticed():
    assert read_graph(convolution(external=True)).external


def test_freed_sizes_keep_the_channels_and_everything_else():
    freed = with_free_sizes(convolution(listed=True))
    graph = read_graph(freed)
    assert graph.inputs == [Value("image", FLOAT, (None, 3, None, None))]
    assert graph.outputs == [Value("out", FLOAT, (None, 4, None, None))]
    assert WEIGHT.tobytes() in freed
    assert with_free_sizes(freed) == freed


def test_a_network_with_freed_sizes_runs_on_other_sizes():
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `people`")
    image = np.random.default_rng(0).random((1, 3, 7, 9), np.float32)
    session = onnxruntime.InferenceSession(with_free_sizes(convolution(True)), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image})
    expected = np.broadcast_to(image.sum(1, keepdims=True), (1, 4, 7, 9))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"\x08", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 20, b"\x38\x01"]
)
def test_what_is_no_onnx_file_is_a_value_error(content):
    with pytest.raises(ValueError, match="it "):
        read_graph(content)


def test_cut_off_and_altered_files_are_read_or_refused_with_a_value_error():
    whole = convolution(listed=True)
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(len(whole))]
    for _ in range(500):
        bytes_ = bytearray(whole)
        bytes_[random.integers(len(whole))] = random.integers(256)
        damaged.append(bytes(bytes_))
    refused = 0
    for content in damaged:
        try:
            with_free_sizes(content)
        except ValueError:
            refused += 1
    assert refused > len(whole) // 2
