"""The scores of a run's own decoder, against probabilities and counts of single pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from masked_squares import PLAIN, WEIGHT, PixelNetwork, Squares, masked, noisy_image, values

from wildfern.ssl.evaluation import HeldOut, Segmentation, evaluate_backbones
from wildfern.ssl.evaluation.evaluator import MaskedImages
from wildfern.ssl.evaluation.protocols.segmentation import segmentation_scores, segmented
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

SHAPES = [(20, 24), (9, 30), (16, 16), (40, 17)]


def unread():
    pytest.fail("the train split was read")


def scored(images, network, evaluator):
    train = MaskedImages(unread, 1, network, PLAIN)
    return evaluator(train, HeldOut(masked(images, network)))


def probabilities(image):
    x = (image.pixels / 255 - 0.5) / 0.25
    return 1 / (1 + np.exp(-(x @ np.array(WEIGHT))))


def counts(image, threshold, region):
    """True positives, false positives and false negatives of an image, pixel by pixel."""
    found = np.zeros(3, int)
    probability = probabilities(image)
    for place in np.ndindex(image.mask.shape):
        if region and not image.region[place]:
            continue
        predicted, wanted = probability[place] >= threshold, image.mask[place]
        found += [predicted and wanted, predicted and not wanted, wanted and not predicted]
    return found


@pytest.mark.parametrize("region", ["field_of_view", "all"])
def test_scores_are_means_over_images_of_counts_of_pixels(region):
    images = [noisy_image(item, shape, region=True) for item, shape in enumerate(SHAPES)]
    network = PixelNetwork(settings=SegmentationSettings(16, (16, 16), threshold=0.31, chosen_on="rendered images"))
    scores = scored(images, network, Segmentation(region=region))
    assert scores[0].metric == "dice"
    inside = region == "field_of_view"
    expected = {name: [] for name in ("dice", "iou", "precision", "recall")}
    for image in images:
        right, wrong, missed = counts(image, 0.5, inside)
        expected["dice"].append(2 * right / (2 * right + wrong + missed))
        expected["iou"].append(right / (right + wrong + missed))
        expected["precision"].append(right / (right + wrong))
        expected["recall"].append(right / (right + missed))
    found = {score.metric: score for score in scores}
    for name, each in expected.items():
        assert found[name].value == pytest.approx(np.mean(each))
        assert found[name].per_image == pytest.approx(each)
        assert found[name].n == 4
        assert found[name].low < found[name].value < found[name].high
        assert found[name].share
    assert not found["component_error"].share
    table = []
    for threshold in np.arange(1, 100) / 100:
        right, wrong, missed = np.array([counts(image, threshold, inside) for image in images]).T
        table.append((2 * right / (2 * right + wrong + missed)).mean())
    assert found["dice_validation_threshold"].value == pytest.approx(table[30])
    assert found["dice_oracle_threshold"].value == pytest.approx(max(table))
    assert f"oracle threshold {(1 + np.argmax(table)) / 100:.2f}" in found["dice_oracle_threshold"].detail
    assert found["dice_validation_threshold"].detail.startswith("threshold 0.31, chosen on rendered images; ")
    assert ("inside the field of view" in scores[0].detail) == inside
    at_chosen = [counts(image, 0.31, inside) for image in images]
    dice = [2 * right / (2 * right + wrong + missed) for right, wrong, missed in at_chosen]
    assert scores[0].segmentation.dice == pytest.approx(dice)


def test_without_a_threshold_of_the_run_there_is_no_score_at_it():
    images = [noisy_image(0), noisy_image(1)]
    names = [score.metric for score in scored(images, PixelNetwork(), Segmentation())]
    assert "dice_validation_threshold" not in names
    assert names[-1] == "dice_oracle_threshold"


def test_a_field_of_view_counts_only_where_an_image_has_one():
    images = [noisy_image(0), noisy_image(1, region=True)]
    found = scored(images, PixelNetwork(), Segmentation())[0]
    for value, image in zip(found.per_image, images, strict=True):
        right, wrong, missed = counts(image, 0.5, image.region is not None)
        assert value == pytest.approx(2 * right / (2 * right + wrong + missed))


@pytest.mark.parametrize(
    ("settings", "options", "windows"),
    [
        # Images of 20 × 30 px, resized by 2, in windows of 10 px side by side; half a window further; and not resized.
        (SegmentationSettings(10, (5, 5)), {"overlap": 0}, 4 * 6),
        (SegmentationSettings(10, (5, 5)), {"overlap": 0.5}, 7 * 11),
        (SegmentationSettings(10, (5, 5)), {"overlap": 0, "scale": 1.0}, 2 * 3),
        # Training saw a quarter of the area, half of the side: 10 of the 20 px.
        (SegmentationSettings(10, None, (0.25, 0.25)), {"overlap": 0}, 2 * 3),
    ],
)
def test_images_are_resized_as_in_training_unless_a_scale_is_given(settings, options, windows):
    network = PixelNetwork(settings=settings)
    scored([noisy_image(0, (20, 30))], network, Segmentation(**options))
    assert sum(shape[0] for shape in network.seen) == windows
    assert {shape[1:] for shape in network.seen} == {(3, 10, 10)}


def test_the_network_is_left_in_its_mode():
    network = PixelNetwork().train()
    seen = []
    network.segment = lambda x: seen.append((network.training, torch.is_grad_enabled())) or x[:, 0]
    scored([noisy_image(0)], network, Segmentation())
    assert set(seen) == {(False, False)}
    assert network.training


def test_a_diverged_network_gets_no_score():
    with pytest.raises(ValueError, match="NaN or infinity: the network has diverged"):
        scored([noisy_image(0)], PixelNetwork((np.nan, 0.0, 0.0)), Segmentation())


def test_a_network_without_a_decoder_is_refused():
    with pytest.raises(ValueError, match="needs a network with a decoder, such as that of a run of freecos"):
        Segmentation().check_network(Backbone("resnet18"), 32)
    Segmentation().check_network(PixelNetwork(), 32)


def test_scores_of_no_image_are_refused():
    with pytest.raises(ValueError, match="there is no image to segment"):
        segmentation_scores(segmented(PixelNetwork(), [], PLAIN, SegmentationSettings(16)))


def test_rows_of_an_evaluation_have_the_scores_and_their_images():
    networks = {"random": PixelNetwork((0.0, 0.0, 0.0)), "pretrained": PixelNetwork((4.0, 0.0, 0.0))}
    test = Squares(range(4), region=True)
    evaluators = {"it": Segmentation(region="all")}
    result = evaluate_backbones(
        networks, Squares([9]), test, dataset="squares", evaluators=evaluators, preprocessing=PLAIN
    )
    rows = {row["backbone"]: row for row in result.rows if row["metric"] == "dice"}
    assert rows["pretrained"]["value"] == pytest.approx(1.0)  # the mask is where red is above 127
    assert rows["random"]["value"] < 0.5  # all is predicted at 0.5
    assert (rows["pretrained"]["train_images"], rows["pretrained"]["test_images"]) == (None, 4)  # train is not read
    assert rows["pretrained"]["n"] == 4
    assert rows["pretrained"]["difference_low"] > 0
    direct = values(evaluators["it"](masked([], networks["random"]), HeldOut(masked(test.images, networks["random"]))))
    assert rows["random"]["value"] == direct["dice"]


def test_a_test_split_without_masks_is_refused():
    test = Squares(range(2))
    whole = test.read
    test.read = lambda items: replace(whole(items), masks=None)
    split = {"dataset": "squares", "evaluators": {"it": Segmentation()}, "preprocessing": PLAIN}
    with pytest.raises(ValueError, match=r"squares \(test\) has no masks"):
        evaluate_backbones({"random": PixelNetwork()}, Squares([9]), test, **split)
