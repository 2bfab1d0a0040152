import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wildfern.ssl.data import open_source
from wildfern.ssl.evaluation import KNN, LinearProbe, Preprocessing, evaluate_backbones, extract_features
from wildfern.ssl.evaluation.report.image_details import details_path, read_details, write_details


@pytest.fixture(scope="module")
def evaluated():
    torch.manual_seed(0)
    networks = {
        name: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten()) for name in ("random", "pretrained")
    }
    sources = [open_source("digits", split) for split in ("train", "test")]
    result = evaluate_backbones(
        networks, *sources, dataset="digits", evaluators={"linear": LinearProbe(strengths=(1e-2,)), "knn": KNN()},
        preprocessing=Preprocessing(size=8), details=True,
    )  # fmt: skip
    return networks, sources, result


def test_predictions_are_those_that_were_scored(evaluated):
    _, (_, test), result = evaluated
    details = result.details["digits"]
    assert len(details) == test.num_items
    assert details.class_names == tuple(test.class_names)
    for row in result.main_rows():
        found = details.predictions[row["protocol"], row["backbone"]]
        assert (found.ranked[:, 0] == details.labels).mean() == pytest.approx(row["value"])
        assert found.confidence.shape == (len(details),)
        assert 0.1 <= found.confidence.min() <= found.confidence.max() <= 1


def test_neighbors_are_the_nearest_train_images(evaluated):
    networks, (train, test), result = evaluated
    neighbors = result.details["digits"].neighbors
    for name, network in networks.items():
        bank, queries = (
            extract_features(network, [(source.read(np.arange(source.num_items)).pixels, None)], size=8).x
            for source in (train, test)
        )
        similarity = nn.functional.normalize(queries[neighbors.queries]) @ nn.functional.normalize(bank).T
        torch.testing.assert_close(
            similarity.gather(1, torch.from_numpy(neighbors.items[name])), similarity.topk(8).values
        )
        labels = train.read(neighbors.items[name].ravel()).labels.reshape(neighbors.items[name].shape)
        assert (neighbors.labels[name] == labels).all()


def test_the_map_keeps_distances_of_unit_rows(evaluated):
    networks, (_, test), result = evaluated
    details = result.details["digits"]
    rows = extract_features(networks["random"], [(test.read(np.arange(test.num_items)).pixels, None)], size=8).x
    rows = nn.functional.normalize(rows)[details.map_images]
    found = torch.from_numpy(details.map_features["random"])
    assert found.shape == (test.num_items, 50)
    exact, kept = torch.pdist(rows), torch.pdist(found)
    assert (kept <= exact + 1e-4).all()
    assert kept.square().sum() > 0.95 * exact.square().sum()


def test_thumbnails_are_the_images(evaluated):
    _, (train, test), result = evaluated
    details = result.details["digits"]
    for thumbnails, source in ((details.thumbnails, test), (details.train_thumbnails, train)):
        for place in (0, len(thumbnails.images) - 1):
            image = np.asarray(Image.open(io.BytesIO(thumbnails.files[place])).convert("RGB"), float)
            expected = source.read([thumbnails.images[place]]).pixels[0]
            assert np.abs(image - expected).mean() < 12
    assert set(details.neighbors.items["pretrained"].ravel()) <= set(details.train_thumbnails.images)


def test_details_are_read_back(evaluated, tmp_path):
    details = evaluated[2].details["digits"]
    file = write_details(tmp_path, details)
    assert file == details_path(tmp_path, "digits")
    found = read_details(tmp_path, "digits")
    assert found.predictions.keys() == details.predictions.keys()
    for names, one in details.predictions.items():
        np.testing.assert_array_equal(found.predictions[names].ranked, one.ranked)
        np.testing.assert_allclose(found.predictions[names].confidence, one.confidence, atol=1e-3)
    for name in ("labels", "items", "train_counts", "map_images"):
        np.testing.assert_array_equal(getattr(found, name), getattr(details, name))
    assert found.thumbnails.files == details.thumbnails.files
    np.testing.assert_array_equal(found.neighbors.items["random"], details.neighbors.items["random"])
    assert read_details(tmp_path, "other") is None


def test_details_of_some_backbones_and_of_an_earlier_evaluation(evaluated):
    details = evaluated[2].details["digits"]
    only = details.only(["pretrained"])
    assert {names[1] for names in only.predictions} == {"pretrained"}
    assert list(only.map_features) == list(only.neighbors.items) == ["pretrained"]
    assert only.with_earlier(details).predictions.keys() == details.predictions.keys()
    assert only.with_earlier(None) is only
    assert only.with_earlier(replace(details, items=details.items + 1)) is only


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-3], lambda c: c[:3], lambda c: b"\xff" + c[1:], lambda c: c[:9] + b"[" + c[10:]]
)
def test_damaged_details_are_an_error_in_one_line(evaluated, tmp_path, damage):
    file = write_details(tmp_path, evaluated[2].details["digits"])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=file.name) as error:
        read_details(tmp_path, "digits")
    assert "\n" not in str(error.value)


def test_numbers_out_of_range_are_refused(evaluated, tmp_path):
    details = evaluated[2].details["digits"]
    wrong = replace(details, map_images=details.map_images + 1000)
    write_details(tmp_path, wrong)
    with pytest.raises(ValueError, match="map_images has numbers out of range"):
        read_details(tmp_path, "digits")
