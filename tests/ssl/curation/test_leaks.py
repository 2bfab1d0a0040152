"""Images of evaluation sets found again: exactly, re-encoded and resized, and no others."""

import io

import numpy as np
import pytest
from curated_images import scene
from PIL import Image

from wildfern.ssl.curation.curate import Tools, scan
from wildfern.ssl.curation.duplicates import QUALITY
from wildfern.ssl.curation.leaks import EvaluationImages
from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.measure import measure, pixels_sha256
from wildfern.ssl.curation.policy import Duplicates, Leak, Policy
from wildfern.ssl.data import Images, Source

SIZE = (96, 72)


class InMemory(Source):
    """These images uint8[H, W, C]."""

    def __init__(self, images: list[np.ndarray], endless: bool = False) -> None:
        super().__init__()
        self.images, self.num_items = images, None if endless else len(images)
        self.asked: list[int] = []

    def read(self, items) -> Images:
        self.asked += np.asarray(items).tolist()
        return Images.gather([self.images[item] for item in np.asarray(items)])


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def arrays(images) -> list[np.ndarray]:
    return [np.asarray(image) for image in images]


def matches(evaluation: EvaluationImages, contents: list[bytes], rule: Duplicates | None = None) -> dict[int, set[int]]:
    """By the number of a content, the numbers of the evaluation images it is a copy of."""
    rows = [measure(content) for content in contents]
    hashes = np.array([row["phash"] for row in rows], np.uint64)
    small = np.stack([np.frombuffer(row["small"], np.uint8).reshape(16, 16, 3) for row in rows])
    places, numbers, differences = evaluation.matches(hashes, small, rule or Duplicates())
    assert len(places) == len(numbers) == len(differences)
    assert (differences <= (rule or Duplicates()).difference).all()
    return {place: set(numbers[places == place].tolist()) for place in range(len(contents)) if (places == place).any()}


def test_re_encoded_and_resized_copies_are_found_and_no_others():
    evaluation = EvaluationImages.of(
        [
            ("set train", InMemory(arrays(scene(n, SIZE) for n in range(20)))),
            ("set test", InMemory(arrays([scene(20, SIZE)]))),
        ]
    )
    assert (evaluation.names[3], evaluation.names[20]) == ("set train image 3", "set test image 0")
    copies = [
        encoded(scene(3, SIZE)),
        encoded(scene(4, SIZE), "JPEG", quality=60),
        encoded(scene(5, SIZE).resize((48, 36), Image.Resampling.BICUBIC)),
        encoded(scene(6, SIZE).resize((200, 150), Image.Resampling.LANCZOS), "JPEG", quality=85),
        encoded(scene(20, SIZE), "WEBP", quality=80),
        encoded(scene(7, SIZE).convert("L")),
    ]
    others = [encoded(scene(n, SIZE)) for n in range(100, 140)]
    assert matches(evaluation, copies + others) == {0: {3}, 1: {4}, 2: {5}, 3: {6}, 4: {20}, 5: {7}}


def test_the_pixels_of_each_image_are_known():
    images = arrays(scene(n, SIZE) for n in range(3))
    evaluation = EvaluationImages.of([("a", InMemory(images)), ("b", InMemory([images[1]]))])
    assert evaluation.digests == {pixels_sha256(image): n for n, image in enumerate(images)}  # the first of equal ones
    row = measure(encoded(scene(2, SIZE)))
    assert evaluation.digests[row["pixels_sha256"]] == 2
    assert (evaluation.hashes[2], evaluation.small[2].tobytes()) == (row["phash"], row["small"])


def test_gray_images_and_those_of_more_bands_count_by_their_first_bands():
    gray = np.asarray(scene(1, SIZE).convert("L"))[..., None]
    color = np.asarray(scene(2, SIZE))
    bands = [np.concatenate([color, color[..., :1]], 2), np.concatenate([gray, gray // 2], 2)]
    evaluation = EvaluationImages.of([("gray", InMemory([gray])), ("bands", InMemory(bands))])
    assert list(evaluation.digests) == [
        pixels_sha256(np.repeat(gray, 3, 2)),
        pixels_sha256(color),
    ]
    assert matches(evaluation, [encoded(scene(1, SIZE)), encoded(scene(2, SIZE))]) == {0: {0, 2}, 1: {1}}


def test_images_without_features_match_by_their_pixels_alone():
    flat = np.full((64, 64, 3), 90, np.uint8)
    evaluation = EvaluationImages.of([("flat", InMemory([flat, np.asarray(scene(0, SIZE))]))])
    assert evaluation.featured.tolist() == [False, True]
    near = measure(encoded(Image.fromarray(flat + 1)))
    assert near["phash_quality"] < QUALITY
    assert matches(evaluation, [encoded(Image.fromarray(flat + 1))]) == {}
    assert pixels_sha256(flat) in evaluation.digests


def test_the_rule_says_how_much_a_copy_may_differ():
    evaluation = EvaluationImages.of([("set", InMemory(arrays([scene(0, SIZE)])))])
    darker = encoded(scene(0, SIZE).point(lambda value: int(0.9 * value)))
    found = [bool(matches(evaluation, [darker], Duplicates(bits=6, difference=most))) for most in (5.0, 30.0)]
    assert found == [False, True]
    assert matches(evaluation, [encoded(scene(0, SIZE))], Duplicates(bits=0, difference=0.0)) == {0: {0}}


def test_a_large_set_is_read_piece_by_piece():
    source = InMemory(arrays(scene(n % 7, (32, 32)) for n in range(600)))
    evaluation = EvaluationImages.of([("set", source)])
    assert source.asked == list(range(600))
    assert len(evaluation.names) == len(evaluation.hashes) == len(evaluation.small) == 600
    assert len(evaluation.digests) == 7
    assert np.array_equal(evaluation.hashes, np.tile(evaluation.hashes[:7], 86)[:600])


def test_a_set_without_images_matches_nothing_and_an_endless_one_is_an_error():
    assert matches(EvaluationImages.of([]), [encoded(scene(0))]) == {}
    assert matches(EvaluationImages.of([("none", InMemory([]))]), [encoded(scene(0))]) == {}
    with pytest.raises(CurationError, match=r"leak.against: ifs is endless; name a finite evaluation set"):
        EvaluationImages.of([("ifs", InMemory([np.asarray(scene(0))], endless=True))])


def test_a_scan_rejects_leaks_and_says_of_which_image(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        scene(number, SIZE).save(tmp_path / "images" / f"{number}.jpg", quality=90)
    scene(50, SIZE).resize((64, 48), Image.Resampling.BICUBIC).save(tmp_path / "images" / "leak.png")
    exact = Image.open(tmp_path / "images" / "2.jpg").convert("RGB")
    evaluation = EvaluationImages.of([("cifar test", InMemory(arrays([scene(60, SIZE), scene(50, SIZE), exact])))])
    policy = Policy(leak=Leak(action="reject", against=("cifar",)))
    found = scan([f"folder:{tmp_path}/images"], tmp_path / "c", policy, tools=Tools(evaluation=evaluation)).manifest
    rows = [row for row in found.table(["path", "decision", "reasons"]).to_pylist() if row["decision"] != "keep"]
    assert {row["path"]: (row["reasons"][0]["rule"], row["reasons"][0]["detail"]) for row in rows} == {
        "2.jpg": ("leak", "also cifar test image 2"),
        "leak.png": ("leak", "also cifar test image 1"),
    }
    assert [row["reasons"][0]["value"] for row in rows if row["path"] == "2.jpg"] == [0.0]
    assert "leaks: compared with cifar" in found.info.checked
