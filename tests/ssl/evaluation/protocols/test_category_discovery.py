import itertools

import pytest
import torch
import torch.nn.functional as F
from class_clouds import points

from wildfern.ssl.evaluation import Features, HeldOut, wilson_interval
from wildfern.ssl.evaluation.protocols.category_discovery import CategoryDiscovery, draw_labeled
from wildfern.ssl.evaluation.protocols.gaussian_mixture import mixture_clusters, principal_components
from wildfern.ssl.evaluation.protocols.semi_supervised_k_means import semi_supervised_k_means


def by_metric(scores):
    return {score.metric: score for score in scores}


@pytest.mark.parametrize(
    ("known", "labeled", "chosen", "shown"), [(0.5, 0.5, 3, 5), (0.01, 0.001, 1, 1), (0.99, 1, 5, 10)]
)
def test_known_classes_and_their_labeled_images_are_drawn(known, labeled, chosen, shown):
    y = points(60).y
    classes, given = draw_labeled(y, known, labeled, seed=1)
    assert len(classes.unique()) == len(classes) == chosen
    for place, label in enumerate(classes):
        assert (given == place).sum() == shown
        assert (y[given == place] == label).all()
    assert (given >= 0).sum() == chosen * shown
    again = draw_labeled(y, known, labeled, seed=1)
    assert torch.equal(again[0], classes)
    assert torch.equal(again[1], given)
    assert not torch.equal(draw_labeled(y, known, 0.5, seed=2)[1], draw_labeled(y, known, 0.5, seed=1)[1])


@pytest.mark.parametrize("algorithm", ["gmm", "kmeans"])
def test_scores_are_those_of_one_matching_over_all_images(algorithm):
    train, test = points(240, noise=0.3), points(90, seed=1, noise=0.3)
    evaluator = CategoryDiscovery(algorithm=algorithm, classes=6, seed=3)
    scores = by_metric(evaluator(train, HeldOut(test)))
    assert list(scores) == ["accuracy", "known_accuracy", "novel_accuracy"]
    known, given = draw_labeled(train.y, 0.5, 0.5, seed=3)
    rows, queries = F.normalize(train.x, dim=1), F.normalize(test.x, dim=1)
    if algorithm == "kmeans":
        nearest = torch.cdist(queries, semi_supervised_k_means(rows, given, 6, seed=3)[0]).argmin(1)
    else:
        owner = mixture_clusters(principal_components(rows), given, 6, 240, seed=3)
        means = torch.stack([rows[owner == k].mean(0) for k in range(6)])
        nearest = ((queries @ F.normalize(means, dim=1).T) / 0.1).softmax(1).argmax(1)
    best = max(
        itertools.permutations(range(2, 8)), key=lambda labels: (torch.tensor(labels)[nearest] == test.y).sum().item()
    )
    right = torch.tensor(best)[nearest] == test.y
    of_known = torch.isin(test.y, known)
    for metric, counted in (("accuracy", of_known | True), ("known_accuracy", of_known), ("novel_accuracy", ~of_known)):
        score = scores[metric]
        assert score.value == pytest.approx(right[counted].float().mean().item())
        assert score.n == int(counted.sum())
        assert (score.low, score.high) == wilson_interval(int(right[counted].sum()), score.n)
        assert score.per_image.tolist() == right[counted].tolist()
    assert 0.6 < scores["accuracy"].value < 1


@pytest.mark.parametrize("algorithm", ["gmm", "kmeans"])
def test_the_number_is_a_score_if_it_is_estimated(algorithm):
    train, test = points(240), points(60, seed=1)
    scores = by_metric(CategoryDiscovery(algorithm=algorithm, max_classes=40, known=0.7)(train, HeldOut(test)))
    number = scores["estimated_classes"]
    assert (number.value, number.low, number.high, number.n, number.share) == (6, None, None, 0, False)
    assert "true number 6" in number.detail
    assert scores["accuracy"].value == 1


class ReadAfter(HeldOut):
    def __init__(self, data, chosen):
        super().__init__(data)
        self.chosen = chosen

    def read(self):
        assert self.chosen
        return super().read()


@pytest.mark.parametrize("algorithm", ["gmm", "kmeans"])
def test_unlabeled_labels_and_test_choose_nothing(algorithm, monkeypatch):
    train, test = points(240, noise=0.3), points(90, seed=1, noise=0.3)
    evaluator = CategoryDiscovery(algorithm=algorithm, max_classes=12)
    chosen = []
    prototypes = evaluator._prototypes
    monkeypatch.setattr(evaluator, "_prototypes", lambda *given: chosen.append(prototypes(*given)) or chosen[-1])
    state = torch.random.get_rng_state()
    first = evaluator(train, ReadAfter(test, chosen))
    assert torch.equal(torch.random.get_rng_state(), state)
    novel = (~torch.isin(train.y, draw_labeled(train.y, 0.5, 0.5, seed=0)[0])).nonzero()[:, 0]
    mixed = train.y.clone()
    mixed[novel] = mixed[novel.roll(1)]  # labels of novel images, which are never shown
    assert not torch.equal(mixed, train.y)
    assert evaluator(Features(train.x, mixed), HeldOut(test)) == first
    evaluator(train, HeldOut(Features(test.x.flip(1), test.y.flip(0))))
    assert torch.equal(chosen[0], chosen[1])
    assert torch.equal(chosen[0], chosen[2])


def test_test_classes_without_train_images_are_novel():
    train, test = points(240), points(60, seed=1)
    labels = test.y.clone()
    labels[:6] = 99
    scores = by_metric(CategoryDiscovery(classes=6)(train, HeldOut(Features(test.x, labels))))
    assert scores["known_accuracy"].n + scores["novel_accuracy"].n == 60
    assert scores["accuracy"].value == pytest.approx(54 / 60)
    assert "novel without train images: 99 (6 test images)" in scores["accuracy"].detail
    known = draw_labeled(train.y, 0.5, 0.5, seed=0)[0]
    alone = by_metric(CategoryDiscovery(classes=6)(train, HeldOut(test[torch.isin(test.y, known)])))
    assert list(alone) == ["accuracy", "known_accuracy"]


def test_impossible_settings_and_data_are_refused():
    for settings, message in (
        ({"algorithm": "dbscan"}, 'algorithm is "gmm" or "kmeans"'),
        ({"known": 1.0}, "known is the share of the classes"),
        ({"labeled": 0.0}, "labeled is the share of the images"),
        ({"classes": 1}, "classes is at least 2, or null"),
        ({"max_classes": 1}, "max_classes is at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            CategoryDiscovery(**settings)
    data = points(60)

    def run(train=data, **settings):
        return CategoryDiscovery(**settings)(train, HeldOut(train))

    with pytest.raises(
        ValueError, match="classes is at least the 3 known classes, and at most those and one for each of 45"
    ):
        run(classes=2)
    with pytest.raises(ValueError, match="got 49"):
        run(classes=49)
    with pytest.raises(ValueError, match="max_classes is less than the 3 known classes, got 2"):
        run(max_classes=2)
    with pytest.raises(ValueError, match="no known class has two labeled images"):
        run(labeled=0.01)
    with pytest.raises(ValueError, match="at least two classes"):
        run(Features(data.x, torch.zeros_like(data.y)))
    with pytest.raises(ValueError, match="each image with its label"):
        run(Features(data.x, data.y - 3))
    with pytest.raises(ValueError, match="the backbone has collapsed"):
        run(Features(torch.ones_like(data.x), data.y))
    with pytest.raises(ValueError, match="one label per image"):
        run(Features(data.x, F.one_hot(data.y).byte()))
