import hashlib
import pickle
import sys

import numpy as np
import pytest
from small_onnx import model, node, red_cells, tensor, value_info

from wildfern.ssl.curation import detector
from wildfern.ssl.curation.detector import detect_everywhere, open_detector
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.onnx_detector import FREE_SIDE, decode, letterbox

SIDE = 64
CELLS = 64 + 16 + 4  # at strides 8, 16, 32
PACKAGES = {"onnxruntime": "onnxruntime", "opencv": "cv2"}


@pytest.fixture(params=PACKAGES)
def runner(request, monkeypatch):
    pytest.importorskip(PACKAGES[request.param], reason="needs the extra `people`")
    for name, package in PACKAGES.items():
        if name != request.param:
            monkeypatch.setitem(sys.modules, package, None)
    return request.param


@pytest.fixture
def saved(tmp_path):
    def save(content: bytes, name: str = "persons.onnx") -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return save


def rows(count: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random boxes in the first four columns, as center and size, and probabilities in the others."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate([random.uniform(20, 40, (count, 2)), random.uniform(4, 30, (count, 2))], axis=1)
    return np.concatenate([boxes, random.random((count, columns - 4))], axis=1).astype(np.float32)


def plain(rows_: np.ndarray, score) -> tuple[list, list]:
    boxes = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in rows_[:, :4]]
    return boxes, [score(row) for row in rows_]


def first(row):
    return row[4]


def with_objectness(row):
    return row[4] * row[5]


@pytest.mark.parametrize(
    ("count", "columns", "channels_first", "score"),
    [
        (CELLS, 5, True, first),
        (CELLS, 6, True, first),
        (700, 84, True, first),
        (CELLS, 5, False, first),
        (CELLS, 84, False, first),
        (3 * CELLS, 6, False, with_objectness),
        (3 * (CELLS + 1), 9, False, with_objectness),
        (3 * CELLS, 84, False, with_objectness),
        (CELLS + 5, 85, False, with_objectness),
    ],
)
def test_one_output_matches_the_plain_loop(count, columns, channels_first, score):
    given = rows(count, columns)
    output = (given.T if channels_first else given)[None]
    boxes, scores = decode([output], SIDE, SIDE)
    expected_boxes, expected_scores = plain(given, score)
    np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-6)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)


@pytest.mark.parametrize("times", [0, 1, 2, 100])
def test_rows_of_six_after_suppression_are_corners_score_and_class(times):
    rows_ = [[1, 2, 30, 40, 0.9, 0], [5, 6, 7, 8, 0.8, 2], [9, 9, 20, 20, 0.3, 0]] * times
    given = np.array(rows_, np.float32).reshape(1, -1, 6)
    boxes, scores = decode([given], SIDE, SIDE)
    np.testing.assert_array_equal(boxes, given[0, given[0, :, 5] == 0, :4])
    np.testing.assert_allclose(scores, [0.9, 0.3] * times)


def test_boxes_and_scores_in_any_order_with_and_without_classes():
    boxes = np.array([[[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 20, 20]]], np.float32)
    scores = np.array([[0.9, 0.8, 0.3]], np.float32)
    classes = np.array([[0, 17, 0]])
    np.testing.assert_array_equal(decode([scores, boxes], SIDE, SIDE)[0], boxes[0])
    found, kept = decode([classes, boxes, scores], SIDE, SIDE)
    np.testing.assert_array_equal(found, boxes[0, [0, 2]])
    np.testing.assert_array_equal(kept, scores[0, [0, 2]].astype(float))


def test_no_boxes_at_all_are_no_persons():
    boxes, scores = decode([np.zeros((1, 0, 4), np.float32), np.zeros((1, 0), np.float32)], SIDE, SIDE)
    assert (len(boxes), len(scores)) == (0, 0)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([np.zeros((1, CELLS, 6))], r"\[1, 84, 6\], which has several meanings, or none"),
        ([np.zeros((1, CELLS, 20))], "several meanings"),
        ([np.zeros((1, 300, 7))], "several meanings"),
        ([np.zeros((2, 6, CELLS))], r"\[2, 6, 84\]"),
        ([np.zeros((1, 4, CELLS))], r"\[1, 4, 84\]"),
        ([np.zeros((1, 3, 8, 8))], r"\[1, 3, 8, 8\]"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 8))], r"float64\[1, 9, 4\], float64\[1, 8\]"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 9, 80))], "outputs are"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 9)), np.zeros((1, 9))], "outputs are"),
        ([np.zeros((9, 4)), np.zeros(9)], "outputs are"),
        ([np.full((1, 5, CELLS), 3.0)], "no probabilities"),
        ([np.full((1, 5, CELLS), np.nan)], "no probabilities"),
        ([np.full((1, 9, 4), np.inf), np.zeros((1, 9))], "not finite"),
    ],
)
def test_other_outputs_are_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        decode(outputs, SIDE, SIDE)


@pytest.mark.parametrize(("height", "width"), [(30, 90), (64, 64), (200, 50), (1, 500), (7, 5)])
def test_a_letterbox_keeps_the_aspect_ratio_and_tells_where_points_go(height, width):
    image = np.full((height, width, 3), [255, 0, 51], np.uint8)
    fitted, scale, left, top = letterbox(image, 48, 64)
    assert fitted.shape == (1, 3, 48, 64)
    assert fitted.dtype == np.float32
    inner_height, inner_width = max(round(height * scale), 1), max(round(width * scale), 1)
    assert inner_width == 64 or inner_height == 48
    expected = np.full((48, 64, 3), 114 / 255, np.float32)
    expected[int(top) : int(top) + inner_height, int(left) : int(left) + inner_width] = [1, 0, 0.2]
    np.testing.assert_allclose(fitted[0].transpose(1, 2, 0), expected, atol=1e-6)
    assert abs(2 * left + inner_width - 64) <= 1
    assert abs(2 * top + inner_height - 48) <= 1


@pytest.mark.parametrize("layout", ["channels first", "channels last", "boxes"])
def test_a_network_of_each_layout_finds_the_red_cells(runner, saved, layout):
    """128 x 64 pixels are halved, with margins of 16 at the left and right: a red square of 16 pixels is one cell."""
    finder = open_detector(saved(red_cells(SIDE, SIDE, layout)))
    image = np.full((128, 64, 3), 60, np.uint8)
    image[16:32, 32:48] = [255, 0, 0]
    image[80:96, 0:16] = [255, 0, 0]
    boxes = sorted(box for box in finder.detect(image) if box.score > 0.5)
    expected = [[0, 80, 16, 96], [32, 16, 48, 32]]
    if layout == "boxes":  # the upper half of the cells is of another class
        expected = expected[:1]
    np.testing.assert_allclose([box[:4] for box in boxes], expected)


def test_a_network_that_takes_any_size_gets_640_pixels(runner, saved):
    finder = open_detector(saved(red_cells(FREE_SIDE, FREE_SIDE, free=True)))
    assert finder.tile == FREE_SIDE
    image = np.full((320, 320, 3), 60, np.uint8)
    image[100:104, 200:204] = [255, 0, 0]  # enlarged, one cell
    np.testing.assert_allclose(finder.detect(image)[0][:4], [200, 100, 204, 104])


def test_large_images_are_searched_in_tiles_of_the_input(runner, saved):
    finder = open_detector(saved(red_cells(SIDE, SIDE)))
    image = np.full((256, 200, 3), 60, np.uint8)
    image[240:248, 184:192] = [255, 0, 0]  # in the last tile, whose left is at 136 and top at 192
    assert max((box.score for box in finder.detect(image)), default=0) < 0.3
    best = detect_everywhere(finder, image)[0]
    np.testing.assert_allclose(best, [184, 240, 192, 248, 1], atol=1e-6)


def test_a_detector_is_known_by_its_file_and_is_opened_again_in_another_process(runner, saved):
    path = saved(red_cells(SIDE, SIDE))
    finder = open_detector(path)
    checksum = hashlib.sha256(red_cells(SIDE, SIDE)).hexdigest()
    assert finder.description.startswith(f"persons.onnx, weights sha256 {checksum}, runner {runner} ")
    assert finder.detects == "persons"
    sent = pickle.dumps(finder)
    assert len(sent) < 1000
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert pickle.loads(sent).detect(image) == finder.detect(image)
    saved(red_cells(SIDE, SIDE, "channels last"))
    detector._open_again.cache_clear()  # as in a process that has not opened it yet
    with pytest.raises(CurationError, match=r"the weights of people.detector .*persons\.onnx were replaced"):
        pickle.loads(sent)


def constant(values: dict[str, np.ndarray]) -> bytes:
    """A network that gives `values` whatever it sees."""
    return model(
        [node("Identity", [f"{name} stored"], name) for name in values],
        [value_info("image", (1, 3, SIDE, SIDE))],
        [value_info(name, array.shape) for name, array in values.items()],
        [tensor(f"{name} stored", array) for name, array in values.items()],
    )


def test_boxes_from_0_to_1_are_refused_when_the_file_is_opened(saved):
    pytest.importorskip("onnxruntime", reason="needs the extra `people`")
    relative = {"boxes": np.array([[[0.1, 0.2, 0.9, 1]]], np.float32), "scores": np.array([[0.8]], np.float32)}
    with pytest.raises(CurationError, match=r"persons\.onnx: its boxes are from 0 to 1 .* are right"):
        open_detector(saved(constant(relative)))


def test_outputs_of_another_kind_are_refused_when_the_file_is_opened(saved):
    pytest.importorskip("onnxruntime", reason="needs the extra `people`")
    with pytest.raises(CurationError, match=r"persons\.onnx: its outputs are float32\[1, 9, 4\], .* are right"):
        open_detector(saved(constant({"a": np.zeros((1, 9, 4), np.float32), "b": np.zeros((1, 9, 80), np.float32)})))


OUT = [value_info("out", (1, 5, 84))]
WEIGHT = np.zeros((1, 5, 84), np.float32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "is no ONNX file"),
        (model([], [], OUT), "has 0 inputs"),
        (model([], [value_info("a", (1, 3, 8, 8)), value_info("b", (1, 2))], OUT), "has 2 inputs"),
        (
            model([], [value_info("a", (1, 64, 64, 3))], OUT),
            r"the shape \[1, 64, 64, 3\]; float32 \[1, 3, H, W\] is right",
        ),
        (model([], [value_info("a", (8, 3, 64, None))], OUT), r"the shape \[8, 3, 64, \?\]"),
        (model([], [value_info("a", (3, 64, 64))], OUT), r"the shape \[3, 64, 64\]"),
        (model([], [value_info("a", (1, 3, 8, 8), "uint8")], OUT), "the ONNX data type 2"),
        (model([], [value_info("a", (1, 3, 10**6, 8))], OUT), "wants 1000000 x 8 pixels"),
        (model([], [value_info("a", (1, 3, 8, 8))], OUT, [tensor("out", WEIGHT, external=True)]), "in a second file"),
    ],
)
def test_files_that_cannot_be_used_say_what_would_be_right(saved, content, message):
    with pytest.raises(CurationError, match=rf"people.detector: persons\.onnx .*{message}"):
        open_detector(saved(content))


def test_a_missing_file_and_a_folder_are_errors_that_name_the_path(tmp_path):
    with pytest.raises(CurationError, match=r"there is no file .*nothing\.onnx"):
        open_detector(str(tmp_path / "nothing.onnx"))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(CurationError, match=r"folder\.onnx cannot be read: is a folder"):
        open_detector(str(tmp_path / "folder.onnx"))
