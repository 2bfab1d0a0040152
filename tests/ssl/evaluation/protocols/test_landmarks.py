import json
import pickle
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wildfern.ssl.evaluation import Preprocessing
from wildfern.ssl.evaluation.metrics.bootstrap import mean_interval
from wildfern.ssl.evaluation.protocols.landmark_ground_truth import (
    TO_JSON,
    LandmarkGroundTruth,
    LandmarkQuery,
    read_ground_truth,
)
from wildfern.ssl.evaluation.protocols.landmarks import evaluate_landmarks, revisited_scores


def random_truth(queries=12, images=40, seed=0):
    """Each query has a few images of each answer; the first one has no easy ones."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(queries):
        order = rng.permutation(images)
        easy, hard, junk = np.split(order[: rng.integers(9, 20)], [0 if number == 0 else 3, 6])
        found.append(LandmarkQuery(f"q{number}", (0, 0, 8, 8), easy, hard, junk))
    return LandmarkGroundTruth(tuple(f"image{i}" for i in range(images)), tuple(found))


def plain_loop(similarity, truth, positive, left_out):
    """Average precision and precision@1, 5, 10 of each query, one image of the ranking after the other."""
    values = []
    for query, row in zip(truth.queries, similarity.tolist(), strict=True):
        wanted = {int(place) for answer in positive for place in getattr(query, answer)}
        ignored = {int(place) for answer in left_out for place in getattr(query, answer)}
        if not wanted:
            continue
        ranking = [place for place in sorted(range(len(row)), key=lambda place: -row[place]) if place not in ignored]
        area, found, last = 0.0, 0, 0
        for above, place in enumerate(ranking):  # `above` images were ranked before this one
            if place in wanted:
                before = found / above if above else 1.0
                found += 1
                area += (before + found / (above + 1)) / 2 / len(wanted)
                last = above + 1
        cut = [min(k, last) for k in (1, 5, 10)]
        values.append([area, *(sum(place in wanted for place in ranking[:k]) / k for k in cut)])
    return np.array(values)


def test_scores_of_the_three_setups_match_the_plain_loop():
    truth = random_truth()
    similarity = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).mul(4).round()  # with equals
    scores = {score.metric: score for score in revisited_scores(similarity, truth, "squares")}
    assert next(iter(scores)) == "medium_mean_average_precision"
    setups = {
        "easy": (("easy",), ("junk", "hard")),
        "medium": (("easy", "hard"), ("junk",)),
        "hard": (("hard",), ("junk", "easy")),
    }
    for setup, (positive, left_out) in setups.items():
        expected = plain_loop(similarity, truth, positive, left_out)
        assert len(expected) == (11 if setup == "easy" else 12)
        for column, metric in enumerate(("mean_average_precision", "precision@1", "precision@5", "precision@10")):
            score = scores.pop(f"{setup}_{metric}")
            np.testing.assert_allclose(score.per_image, expected[:, column], atol=1e-6)
            assert score.value == pytest.approx(expected[:, column].mean())
            assert (score.low, score.high) == mean_interval(score.per_image)
            assert score.n == len(expected)
            assert score.detail.startswith("gallery of 40 images; squares; ")
    assert not scores


def test_an_example_by_hand():
    """Ranked: junk, wrong, easy, hard. Medium: ranks 2 and 3; hard: rank 2, as the easy one is left out too."""
    query = LandmarkQuery("q", (0, 0, 1, 1), np.array([2]), np.array([3]), np.array([0]))
    truth = LandmarkGroundTruth(("a", "b", "c", "d"), (query,))
    scores = {s.metric: s for s in revisited_scores(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), truth)}
    medium = ((0 / 1 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    assert scores["medium_mean_average_precision"].value == pytest.approx(medium)
    assert scores["hard_mean_average_precision"].value == pytest.approx((0 / 1 + 1 / 2) / 2)
    assert scores["medium_precision@1"].value == 0
    assert scores["medium_precision@5"].value == pytest.approx(2 / 3)  # up to the last positive
    assert scores["medium_precision@5"].low is None


def test_similarities_that_do_not_fit_are_refused():
    truth = random_truth()
    with pytest.raises(ValueError, match=r"similarity is \[12, 40\], queries and images, got \[40, 12\]"):
        revisited_scores(torch.zeros(40, 12), truth)
    with pytest.raises(ValueError, match="NaN"):
        revisited_scores(torch.full((12, 40), torch.nan), truth)
    only = LandmarkGroundTruth(truth.gallery, truth.queries[:1])
    with pytest.raises(ValueError, match="no query has a positive image in the setup easy"):
        revisited_scores(torch.zeros(1, 40), only)


@pytest.fixture
def landmarks(tmp_path):
    """Images with a horizontal or vertical ramp; the query has another ramp outside of its box. Returns folder and content."""
    ramp = np.linspace(0, 255, 48)
    across, down = np.tile(ramp[:32], (24, 1)), np.tile(ramp[:24, None], (1, 32))
    images = {"a": across, "b": down, "c": across[:, ::-1], "d": down[::-1]}
    images["query"] = np.concatenate([across, down], axis=1)  # 24 x 64
    for name, pixels in images.items():
        Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(tmp_path / f"{name}.jpg", quality=95)
    gnd = {"bbx": [32, 0, 64, 24], "easy": [1], "hard": [0], "junk": [2]}
    return tmp_path, {"imlist": ["a", "b", "c", "d"], "qimlist": ["query"], "gnd": [gnd]}


def written(folder, content):
    file = folder / "gnd.json"
    file.write_text(json.dumps(content))
    return file


class Pooled(nn.Module):
    """The gray levels of 4 x 4 fields, centered: takes images of any shape, and remembers these."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        fields = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 4).flatten(1)
        return fields - fields.mean(1, keepdim=True)


def test_queries_are_cropped_to_their_box(landmarks):
    folder, content = landmarks
    square = Preprocessing(size=16)
    scores = evaluate_landmarks(Pooled(), folder, written(folder, content), preprocessing=square)
    assert scores[0].metric == "medium_mean_average_precision"
    by_name = {score.metric: score.value for score in scores}
    assert by_name["easy_precision@1"] == 1  # the box has the ramp of b
    assert "squares of 16 px, queries cropped to their box" in scores[0].detail
    whole = evaluate_landmarks(Pooled(), folder, written(folder, content), preprocessing=square, crop_queries=False)
    assert "queries whole" in whole[0].detail
    left = {**content, "gnd": [{**content["gnd"][0], "bbx": [-5.2, 0, 32.4, 99]}]}  # edges beyond the image are cut
    across = {s.metric: s.value for s in evaluate_landmarks(Pooled(), folder, written(folder, left), longer_side=64)}
    assert across["hard_precision@1"] == 1  # the ramp of a


def test_whole_images_keep_their_shape_and_a_box_its_scale(landmarks):
    folder, content = landmarks
    backbone, reported = Pooled(), []
    progress = type("Progress", (), {"count": lambda self, *told: reported.append(told)})()
    truth = written(folder, content)
    scores = evaluate_landmarks(backbone, folder, truth, longer_side=16, progress=progress)
    # The query of 64 x 24 is shrunk by 4, so its box of 32 x 24 too; images of 32 x 24 are shrunk by 2.
    assert backbone.shapes == [(1, 3, 6, 8), *[(1, 3, 12, 16)] * 4]
    assert reported == [(done, 5, "images") for done in range(5)]
    assert "whole images of at most 16 px" in scores[0].detail
    evaluate_landmarks(backbone := Pooled(), folder, truth, longer_side=1000)
    assert backbone.shapes == [(1, 3, 24, 32)] * 5  # none is enlarged
    evaluate_landmarks(backbone := Pooled(), folder, truth, longer_side=1000, crop_queries=False)
    assert backbone.shapes[0] == (1, 3, 24, 64)


def test_settings_and_images_that_cannot_be_used_are_refused(landmarks):
    folder, content = landmarks
    truth = written(folder, content)
    with pytest.raises(ValueError, match="give preprocessing a size, or a longer_side"):
        evaluate_landmarks(Pooled(), folder, truth)
    with pytest.raises(ValueError, match="longer_side is a number of pixels, at least 1; got 0"):
        evaluate_landmarks(Pooled(), folder, truth, longer_side=0)
    outside = {**content, "gnd": [{**content["gnd"][0], "bbx": [70, 0, 80, 10]}]}
    with pytest.raises(ValueError, match=r"query\.jpg: the box .* has no pixel of this image of 64 x 24 pixels"):
        evaluate_landmarks(Pooled(), folder, written(folder, outside), longer_side=32)
    (folder / "c.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"c\.jpg: "):
        evaluate_landmarks(Pooled(), folder, written(folder, content), longer_side=32)
    (folder / "c.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 images of the ground truth are missing, such as .*c\.jpg"):
        evaluate_landmarks(Pooled(), folder, written(folder, content), longer_side=32)


def test_the_published_pickle_is_refused_with_a_command_that_converts_it(landmarks):
    folder, content = landmarks
    gnd = {key: np.array(value, np.int64) for key, value in content["gnd"][0].items()}
    gnd["junk"] = list(gnd["junk"])  # of numpy's integers
    (folder / "gnd.pkl").write_bytes(pickle.dumps({**content, "gnd": [gnd], "other": object}))
    with pytest.raises(ValueError, match="a pickle can run any program") as refused:
        read_ground_truth(folder / "gnd.pkl")
    assert str(refused.value).endswith(TO_JSON)
    command = shlex.split(TO_JSON)
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)
    found = read_ground_truth(folder / "gnd.json")
    assert found.gallery == ("a", "b", "c", "d")
    [query] = found.queries
    assert (query.name, query.box) == ("query", (32.0, 0.0, 64.0, 24.0))
    assert (query.easy.tolist(), query.hard.tolist(), query.junk.tolist()) == ([1], [0], [2])


def changed(key, value):
    return lambda content: content["gnd"][0].__setitem__(key, value)


INVALID = {
    r'the ground truth is \{"imlist"': lambda content: content.pop("gnd"),
    "gnd 2 entries": lambda content: content["gnd"].append({}),
    "imlist has 0 images": lambda content: content["imlist"].clear(),
    r"named by its file without folder and ending, got '\.\./secret'": lambda content: content["imlist"].append(
        "../secret"
    ),
    "named by its file without folder and ending, got 7": lambda content: content["qimlist"].insert(0, 7),
    "has the keys bbx, easy, hard and junk": lambda content: content["gnd"].__setitem__(0, []),
    r"query query: bbx is \[left, top, right, bottom\]": changed("bbx", [0, 0, 5]),
    "bbx is": changed("bbx", [0, 0, 5, float("nan")]),
    "query query: easy is a list of places in imlist, from 0 to 3": changed("easy", [4]),
    "hard is a list of places": changed("hard", [True]),
    "junk is a list of places": changed("junk", None),
    "easy, hard and junk name an image twice": changed("junk", [1]),
}


@pytest.mark.parametrize("words", INVALID)
def test_a_ground_truth_that_is_wrong_is_refused_by_name(landmarks, words):
    folder, content = landmarks
    INVALID[words](content)
    with pytest.raises(ValueError, match=r"gnd\.json: .*" + words):
        read_ground_truth(written(folder, content))
    (folder / "gnd.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"gnd\.json: "):
        read_ground_truth(folder / "gnd.json")
