import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wildfern.ssl.augmentation import simclr
from wildfern.ssl.evaluation import HeldOut, LabeledImages, Preprocessing, feature_std, rank_me, uniformity
from wildfern.ssl.evaluation.protocols import label_free
from wildfern.ssl.evaluation.protocols.label_free import LabelFree, lidar, view_features


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def images(backbone):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    return LabeledImages(pixels, np.full(24, -1), backbone, Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 1.5)))


def plain_lidar(views, delta, epsilon=1e-7):
    """Eq. 1-4 of the paper, with sums over images and views one by one."""
    n, q, dim = views.shape
    means = views.mean(1)
    sigma_b, sigma_w = np.zeros((dim, dim)), delta * np.eye(dim)
    for image in range(n):
        offset = means[image] - means.mean(0)
        sigma_b += np.outer(offset, offset) / (n - 1)
        for view in views[image]:
            sigma_w += np.outer(view - means[image], view - means[image]) / (n * (q - 1))
    values, vectors = np.linalg.eigh(sigma_w)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ sigma_b @ root).clip(min=0)
    p = eigenvalues / eigenvalues.sum() + epsilon
    return math.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize(("n", "q", "dim"), [(30, 4, 5), (4, 3, 9), (2, 2, 1)])
def test_lidar_matches_the_formula(n, q, dim):
    rng = np.random.default_rng(0)
    views = rng.normal(size=(n, 1, dim)) * np.linspace(3, 0.1, dim) + 0.5 * rng.normal(size=(n, q, dim))
    for delta in (1e-4, 1.0):
        found = lidar(torch.from_numpy(views), delta).item()
        assert found == pytest.approx(plain_lidar(views, delta), rel=1e-6)


def test_lidar_counts_directions_that_tell_images_apart_from_views():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(4000, 1, 6)) * [1, 1, 1, 0, 0, 0]
    views = torch.from_numpy(signal + rng.normal(size=(4000, 4, 6)) * [0.1, 0.1, 0.1, 10, 10, 10])
    assert lidar(views).item() == pytest.approx(3, abs=0.1)
    assert lidar(torch.ones(5, 3, 4)).item() == pytest.approx(1, abs=1e-3)
    assert math.isnan(lidar(torch.full((3, 2, 2), torch.inf)))
    with pytest.raises(ValueError, match=r"two views of two images, got \[3, 1, 2\]"):
        lidar(torch.ones(3, 1, 2))


def test_views_are_functions_of_image_and_seed_alone(images, monkeypatch):
    places = np.array([3, 5, 17, 20])
    state, modes = torch.random.get_rng_state(), [module.training for module in images.backbone.modules()]
    found = view_features(images, places, 3, seed=2)
    assert found.shape == (4, 3, 6)
    assert [module.training for module in images.backbone.modules()] == modes
    monkeypatch.setattr(label_free, "BATCH", 3)  # one image at a time
    torch.testing.assert_close(view_features(images, places, 3, seed=2), found)
    torch.testing.assert_close(view_features(images, places[2:], 3, seed=2), found[2:])
    torch.testing.assert_close(view_features(images, places, 2, seed=2), found[:, :2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (found[:, 0] - found[:, 1]).norm(dim=1).min() > 1e-3
    assert (view_features(images, places, 3, seed=3) - found).norm(dim=2).min() > 1e-3


def test_views_are_those_of_simclr_normalized_for_the_backbone(images):
    """The backbone here returns the pixels of its input."""
    pixels = LabeledImages(images.pixels, images.y, nn.Flatten(), images.preprocessing)
    found = view_features(pixels, np.arange(4), 2, crop_scale=(0.5, 0.9), jitter=0.0, seed=1)
    augment = simclr(size=16, count=2, crop_scale=(0.5, 0.9), jitter=0.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    batch = augment.prepare(images.pixels[:4], label_free.key("label free", 1), 0, np.arange(4))
    [group] = augment(batch)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.preprocessing.mean, images.preprocessing.std))
    torch.testing.assert_close(found, ((group - mean) / std).transpose(0, 1).flatten(2))


def test_scores_are_those_of_the_functions(images):
    scores = {score.metric: score for score in LabelFree(views=3, seed=4)(None, HeldOut(images))}
    assert list(scores) == ["lidar", "rank_me", "alignment", "uniformity", "feature_std"]
    assert not any(score.share for score in scores.values())
    assert {score.n for score in scores.values()} == {24}
    views = view_features(images, np.arange(24), 3, seed=4)
    x = torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.preprocessing.mean, images.preprocessing.std))
    with torch.no_grad():
        plain = images.backbone.eval()((x - mean) / std)
    first, second = F.normalize(views[:, 0], dim=1), F.normalize(views[:, 1], dim=1)
    assert scores["lidar"].value == pytest.approx(plain_lidar(views.double().numpy(), 1e-4), rel=1e-4)
    assert scores["rank_me"].value == pytest.approx(rank_me(plain).item(), rel=1e-4)
    assert scores["feature_std"].value == pytest.approx(feature_std(plain).item(), rel=1e-4)
    assert scores["uniformity"].value == pytest.approx(uniformity(first).item(), rel=1e-4)
    distances = [
        sum((a - b) ** 2 for a, b in zip(*pair, strict=True)).item() for pair in zip(first, second, strict=True)
    ]
    alignment = scores.pop("alignment")
    assert alignment.per_image.tolist() == pytest.approx(distances, rel=1e-3, abs=1e-6)
    assert alignment.value == pytest.approx(np.mean(distances), rel=1e-4)
    assert alignment.low < alignment.value < alignment.high
    for score in scores.values():
        assert (score.low, score.high) == (None, None)
        assert "no interval" in score.detail


def test_the_images_are_random_and_the_same_for_each_backbone(images):
    few = {score.metric: score for score in LabelFree(images=6, views=2)(None, HeldOut(images))}
    assert {metric: score.n for metric, score in few.items()} == {
        "lidar": 6,
        "rank_me": 24,
        "alignment": 6,
        "uniformity": 6,
        "feature_std": 24,
    }
    assert "at most 5; 2 views of each image" in few["lidar"].detail
    whole = {score.metric: score for score in LabelFree(views=2)(None, HeldOut(images))}
    places = [
        np.flatnonzero(np.isclose(whole["alignment"].per_image, one, rtol=1e-4)) for one in few["alignment"].per_image
    ]
    chosen = np.concatenate(places)
    assert len(chosen) == 6
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() != list(range(6))
    other = LabelFree(images=6, views=2, seed=1)(None, HeldOut(images))
    assert other[0].value != few["lidar"].value


def test_test_is_read_once_and_neither_labels_nor_train_matter(images):
    held = HeldOut(images)
    first = LabelFree(views=2)(None, held)
    with pytest.raises(RuntimeError, match="read before"):
        held.read()
    labeled = LabeledImages(images.pixels, np.arange(24) % 3, images.backbone, images.preprocessing)
    assert LabelFree(views=2)(labeled, HeldOut(labeled)) == first


def test_impossible_settings_and_data_are_refused(images):
    for settings, message in (
        ({"images": 1}, "images and views are at least 2, got images=1"),
        ({"views": 1}, "views=1"),
        ({"delta": 0.0}, "delta is a positive number"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"jitter": 2.0}, "jitter must be a probability"),
    ):
        with pytest.raises(ValueError, match=message):
            LabelFree(**settings)
    one = LabeledImages(images.pixels[:1], images.y[:1], images.backbone, images.preprocessing)
    with pytest.raises(ValueError, match="at least two test images, got 1"):
        LabelFree()(one, HeldOut(one))
    gray = LabeledImages(images.pixels[..., :1], images.y, images.backbone, images.preprocessing)
    with pytest.raises(ValueError, match="images have 1 channels, but 3 are normalized for this backbone"):
        LabelFree(views=2)(gray, HeldOut(gray))


def test_a_delta_below_the_rounding_of_a_singular_covariance_is_refused():
    for delta in (0.0, 1e-300, 1e-31, math.inf, math.nan):
        with pytest.raises(ValueError, match="delta is a positive number, at least 1e-30, got"):
            LabelFree(delta=delta)
    rng = np.random.default_rng(0)
    views = rng.normal(size=(6, 1, 40)) + rng.normal(size=(6, 3, 40))  # 12 degrees of freedom within images
    for delta in (1e-17, 1e-30, 1e-300):
        with pytest.raises(
            ValueError, match=f"delta {delta:g} is lost in the rounding.*set a larger delta, such as 0.0001"
        ):
            lidar(torch.from_numpy(views), delta)
    assert lidar(torch.from_numpy(views), 1e-4).item() == pytest.approx(plain_lidar(views, 1e-4), rel=1e-4)
    views = rng.normal(size=(30, 1, 5)) + rng.normal(size=(30, 4, 5))  # regular, so that δ does not matter
    assert lidar(torch.from_numpy(views), 1e-30).item() == pytest.approx(plain_lidar(views, 0.0), rel=1e-6)
    views[..., 2] = 0.0  # a dead feature has a variance of δ, without rounding
    assert lidar(torch.from_numpy(views), 1e-30).item() == pytest.approx(plain_lidar(views, 1e-9), rel=1e-6)
