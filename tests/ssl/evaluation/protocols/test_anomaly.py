"""MuSc: each of its steps against a plain loop, and what the evaluator reads, scores and refuses."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from wildfern.ssl.data import Images, Source
from wildfern.ssl.evaluation import Chunk, ChunkStream, HeldOut, Preprocessing, evaluate_backbones
from wildfern.ssl.evaluation.metrics.bootstrap import statistic_interval
from wildfern.ssl.evaluation.protocols import anomaly as module
from wildfern.ssl.evaluation.protocols import anomaly_scores
from wildfern.ssl.evaluation.protocols.anomaly import (
    Anomaly,
    mutual_maps,
    mutual_scores,
    neighborhood_tokens,
    rescored,
    standardized,
)
from wildfern.ssl.evaluation.protocols.anomaly_scores import image_scores, pixel_scores
from wildfern.ssl.tracking import Progress

NAMES = ("scratch", "Good", "hole")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(anomaly_scores, "statistic_interval", partial(statistic_interval, draws=25))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_tokens(maps, degree):
    """For each patch the mean over the patches around it, scaled to length 1; [N][H · W] vectors."""
    reach, (height, width) = degree // 2, maps.shape[2:]
    images = []
    for image in maps:
        tokens = []
        for row, column in product(range(height), range(width)):
            around = [
                image[:, r, c]
                for r in range(max(0, row - reach), min(height, row + reach + 1))
                for c in range(max(0, column - reach), min(width, column + reach + 1))
            ]
            mean = torch.stack(around).sum(0) / degree**2
            tokens.append(mean / mean.norm())
        images.append(tokens)
    return images


def plain_scores(images, interval):
    """[N, T] of N lists of T tokens: the nearest patch of each other image, and the mean over the nearest images."""
    kept = max(1, math.floor(interval * (len(images) - 1)))
    arrays = [torch.stack([*image]).numpy() for image in images]
    scores = []
    for i, own in enumerate(arrays):
        row = []
        for patch in own:
            nearest = [np.sqrt(((patch - other) ** 2).sum(1)).min() for j, other in enumerate(arrays) if j != i]
            row.append(sum(sorted(nearest)[:kept]) / kept)
        scores.append(row)
    return torch.tensor(np.array(scores), dtype=torch.float64)


def plain_rescored(scores, descriptors, neighbors):
    """D⁻¹ (M ∘ W) c for each k, in matrices, and the mean of these."""
    unit = descriptors / descriptors.norm(dim=1, keepdim=True)
    similarity = (unit @ unit.T).clamp(min=0)
    total = torch.zeros_like(scores)
    for k in neighbors:
        mask = torch.zeros_like(similarity)
        for i in range(len(scores)):
            for j in sorted(range(len(scores)), key=lambda j: -float(similarity[i, j]))[:k]:
                mask[i, j] = 1
        weighted = mask * similarity
        total += torch.diag(1 / weighted.sum(1)) @ weighted @ scores
    return total / len(neighbors)


@pytest.mark.parametrize("degree", [1, 3, 5])
def test_tokens_are_the_plain_loops(degree):
    maps = random(2, 6, 4, 3)
    found = neighborhood_tokens(maps, degree)
    for image, tokens in enumerate(plain_tokens(maps, degree)):
        torch.testing.assert_close(found[image], torch.stack(tokens))


def test_maps_are_standardized_image_by_image():
    maps = 7 * random(3, 5, 4, 4) + 2
    found = standardized(maps)
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(found.std((1, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(standardized(10 * maps[:1]), found[:1])


@pytest.mark.parametrize("elements", [1, 600, 2**24])
@pytest.mark.parametrize(("interval", "images"), [(0.3, 5), (0.5, 5), (1.0, 5), (0.3, 11), (0.3, 2)])
def test_mutual_scores_are_the_plain_loops(interval, images, elements, monkeypatch):
    monkeypatch.setattr(module, "ELEMENTS", elements)
    tokens = neighborhood_tokens(random(images, 6, 4, 4), 1)
    expected = plain_scores([list(image) for image in tokens], interval)
    torch.testing.assert_close(mutual_scores(tokens, interval), expected)


def test_a_patch_that_another_image_has_too_scores_zero_exactly():
    tokens = neighborhood_tokens(random(4, 300, 2, 2).float(), 1)
    tokens[2, 3] = tokens[0, 1]
    scores = mutual_scores(tokens, 0.3)
    assert scores[2, 3] == scores[0, 1] == 0
    assert (scores == 0).sum() == 2


def test_layers_and_degrees_are_averaged_on_the_finest_grid():
    fine, coarse = random(5, 6, 4, 4).float(), random(5, 8, 2, 2, seed=1).float()
    expected = torch.zeros(5, 4, 4, dtype=torch.float64)
    for layer, degree in product((fine, coarse), (1, 3)):
        scores = plain_scores(plain_tokens(layer.double(), degree), 0.5).view(5, 1, *layer.shape[2:])
        expected += nn.functional.interpolate(scores, (4, 4), mode="bilinear", align_corners=False)[:, 0] / 4
    found = mutual_maps([fine, coarse], (1, 3), 0.5)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("neighbors", [(1,), (1, 2, 3), (1, 8, 9), (4,)])
def test_rescoring_is_the_product_of_the_matrices(neighbors):
    scores, descriptors = random(9), random(9, 5, seed=1)
    found = rescored(scores, descriptors, neighbors)
    torch.testing.assert_close(found, plain_rescored(scores, descriptors, neighbors))
    if neighbors == (1,):
        torch.testing.assert_close(found, scores)


def test_rescoring_with_more_neighbors_than_images_and_with_equal_images():
    scores = torch.tensor([1.0, 2.0, 6.0])
    equal = torch.ones(3, 4)
    torch.testing.assert_close(rescored(scores, equal, (1,)), scores)  # itself first, not its copies
    torch.testing.assert_close(rescored(scores, equal, (10,)), torch.full((3,), 3.0))
    torch.testing.assert_close(rescored(scores, torch.zeros(3, 4), (2,)), scores)


class Stream:
    """Two maps of ten images (labels and masks too) in chunks; every opening is counted."""

    def __init__(self, chunk=4, masks=True, images=10):
        self.opened = 0
        self.labels = torch.tensor([1, 0, 1, 1, 2, 1, 0, 1, 1, 2])[:images]
        self.maps = [random(images, 6, 4, 4).float(), random(images, 6, 4, 4, seed=1).float()]
        self.masks = torch.zeros(images, 16, 16, dtype=torch.uint8)
        for image in (self.labels != 1).nonzero()[:, 0]:
            self.masks[image, 4:8, 8:12] = 1  # one patch
        self.chunk, self.with_masks = chunk, masks

    def __call__(self):
        self.opened += 1
        for start in range(0, len(self.labels), self.chunk):
            part = slice(start, start + self.chunk)
            masks = self.masks[part] if self.with_masks else None
            yield Chunk([layer[part] for layer in self.maps], self.labels[part], masks)

    def scores(self, evaluator):
        def unused():
            raise AssertionError("train is not used")

        return evaluator(ChunkStream(unused, NAMES), HeldOut(ChunkStream(self, NAMES)))


def test_the_scores_are_those_of_the_plain_loops_and_test_is_read_once():
    stream = Stream()
    layers = [standardized(layer).half().double() for layer in stream.maps]
    maps = sum(plain_scores(plain_tokens(layer, degree), 0.3) for layer in layers for degree in (1, 3, 5)) / 6
    image = plain_rescored(maps.amax(1), stream.maps[-1].double().mean((2, 3)), (1, 2, 3))
    pixels = nn.functional.interpolate(maps.view(10, 1, 4, 4), (16, 16), mode="bilinear", align_corners=False)[:, 0]
    expected = image_scores(image, stream.labels != 1) + pixel_scores(pixels, stream.masks)
    for chunk in (1, 4, 10):
        stream = Stream(chunk)
        found = stream.scores(Anomaly())
        assert stream.opened == 1
        assert [score.metric for score in found] == [score.metric for score in expected]
        assert found[0].metric == "auroc"
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.n, ours.detail) == (10, theirs.detail)
            assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=1e-3)


def test_labels_and_masks_are_not_used_before_the_scores(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "image_scores", lambda scores, anomalous: seen.append(scores) or [])
    monkeypatch.setattr(module, "pixel_scores", lambda maps, masks: seen.append(maps) or [])
    stream = Stream()
    stream.scores(Anomaly())
    stream.labels = stream.labels.flip(0)
    stream.masks = stream.masks.flip(0)
    stream.scores(Anomaly())
    assert len(seen) == 4
    for ours, theirs in zip(seen[:2], seen[2:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_masks_there_are_no_pixel_scores():
    found = Stream(masks=False).scores(Anomaly(normal="GOOD"))
    assert [score.metric for score in found] == ["auroc", "average_precision", "f1_max"]
    assert [score.metric for score in Stream().scores(Anomaly(normal="good"))][:3] == [score.metric for score in found]


def shapes(*sides, channels=8):
    return [torch.Size((channels, side, side)) for side in sides]


def test_the_layers_are_the_papers_for_a_transformer_and_the_last_stages_of_others():
    chosen = Anomaly()._chosen
    assert chosen(shapes(*[14] * 24)) == [5, 11, 17, 23]
    assert chosen(shapes(*[14] * 12)) == [2, 5, 8, 11]
    assert [chosen(shapes(*[14] * blocks)) for blocks in (1, 2, 3)] == [[0], [0, 1], [0, 1, 2]]
    assert chosen(shapes(56, 56, 28, 14, 7)) == [2, 3, 4]
    assert chosen(shapes(28, 14)) == [0, 1]
    assert Anomaly(layers=(0, -1))._chosen(shapes(28, 14, 7)) == [0, 2]
    with pytest.raises(ValueError, match=r"layers names 3, but the network has 3 maps, 0 … 2"):
        Anomaly(layers=(3,))._chosen(shapes(28, 14, 7))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layers": ()}, "one layer or more"),
        ({"degrees": ()}, "odd sides"),
        ({"degrees": (1, 2)}, "odd sides"),
        ({"interval": 0.0}, "above 0 and at most 1"),
        ({"interval": 1.5}, "above 0 and at most 1"),
        ({"neighbors": ()}, "at least 1 each"),
        ({"neighbors": (0, 1)}, "at least 1 each"),
    ],
)
def test_impossible_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Anomaly(**arguments)


def test_data_that_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="'fine'; there are scratch, Good, hole"):
        Stream().scores(Anomaly(normal="fine"))
    stream = Stream()
    with pytest.raises(ValueError, match="there are no named classes"):
        Anomaly()(ChunkStream(stream), HeldOut(ChunkStream(stream)))
    assert stream.opened == 0
    with pytest.raises(ValueError, match="at least two are needed, got 1"):
        Stream(images=1).scores(Anomaly())
    with pytest.raises(ValueError, match="at least two are needed, got 0"):
        Stream(images=0).scores(Anomaly())
    stream = Stream()
    stream.labels = torch.ones(10, dtype=torch.int64)
    with pytest.raises(ValueError, match="has a mask that marks pixels"):
        stream.scores(Anomaly())
    stream.with_masks = False
    with pytest.raises(ValueError, match="of 10, 0 are anomalous"):
        stream.scores(Anomaly())
    stream = Stream()
    stream.maps[1][3, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="it has diverged"):
        stream.scores(Anomaly())


def test_the_protocol_is_described_and_progress_is_counted():
    words = Anomaly(interval=0.1, degrees=(1, 3)).describe()
    assert "train not used" in words
    assert "nearest 10 % of the other images" in words
    assert "neighborhoods of side 1, 3;" in words
    assert "layers 0, 2 and" in Anomaly(layers=(0, 2)).describe()
    seen = []
    progress = Progress()
    progress.count = lambda done, total, unit, detail=None: seen.append((done, total, unit, detail))
    evaluator = Anomaly(degrees=(1, 3))
    evaluator.progress = progress
    Stream().scores(evaluator)
    assert len(seen) == 2 * 2 * 10
    assert seen[9:11] == [
        (9, 10, "images", "layer 1 of 2, neighborhood 1"),
        (0, 10, "images", "layer 1 of 2, neighborhood 3"),
    ]


class Parts(Source):
    """Images of one texture; every third has a black spot, which its mask marks."""

    class_names = ("good", "spot")
    num_classes: int | None = 2
    num_items = 12

    def read(self, items):
        row = np.indices((16, 16)).sum(0) % 4
        pixels = np.repeat(
            np.random.default_rng(0).integers(100, 110, (12, 16, 16, 1)) + 20 * row[None, ..., None], 3, 3
        )
        labels = (np.arange(12) % 3 == 0).astype(np.int64)
        masks = np.zeros((12, 16, 16), np.uint8)
        for number in np.flatnonzero(labels):
            top, left = 4 * (number % 4), 4 * (number // 4)
            masks[number, top : top + 4, left : left + 4] = 1
        pixels[masks == 1] = np.random.default_rng(1).integers(0, 255, (int(masks.sum()), 3))
        return Images(pixels[items].astype(np.uint8), labels[items], masks=masks[items])


class Patches(nn.Module):
    def maps(self, x):
        return [nn.functional.pixel_unshuffle(x, 4), nn.functional.pixel_unshuffle(x, 8)]

    def forward(self, x):
        return x.mean((2, 3))


def test_defects_are_found_through_the_protocol_of_all_evaluators():
    source = Parts()
    result = evaluate_backbones(
        {"random": Patches()},
        source,
        source,
        dataset="parts",
        evaluators={"anomaly": Anomaly(degrees=(1,), neighbors=(1,), layers=(0,))},
        preprocessing=Preprocessing(size=16),
    )
    values = {row["metric"]: row["value"] for row in result.rows}
    assert values["auroc"] == values["average_precision"] == values["f1_max"] == 1
    assert values["pixel_auroc"] > 0.95
    assert values["per_region_overlap"] > 0.9
    assert {row["n"] for row in result.rows} == {12}
