"""Images with several labels: every evaluator that takes multi-hot labels, against scikit-learn or a plain loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from wildfern.generators import make_stream
from wildfern.generators.counter_rng import key
from wildfern.registry import EVALUATORS
from wildfern.ssl.data import Images, Source
from wildfern.ssl.evaluation import (
    KNN,
    Evaluator,
    Features,
    FewShot,
    Finetune,
    HeldOut,
    LabeledImages,
    LinearProbe,
    Preprocessing,
    Retrieval,
    Score,
    evaluate_backbones,
    few_shot,
    finetune,
    knn,
    linear_probe,
    retrieve,
)
from wildfern.ssl.evaluation.labeled_chunks import MULTI_LABEL, label_array
from wildfern.ssl.evaluation.protocols.knn import knn_scores
from wildfern.ssl.evaluation.protocols.logistic_regression import OneVsRestPath
from wildfern.ssl.evaluation.protocols.multi_label_probe import _parts_of_images


def tagged(n, dim=8, classes=4, seed=0, noise=1.0):
    """Features with a direction for each class, of very different scales; about a fifth of the images have no class."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    y = (torch.rand(n, classes, generator=generator) < 0.3).to(torch.uint8)
    x = y.float() @ directions + noise * torch.randn(n, dim, generator=generator)
    return Features((x * torch.logspace(-2, 2, dim) + 5).float(), y)


def sklearn_probe(train, strength):
    """The scaler, and a fitted regression for each class."""
    scaler = StandardScaler().fit(train.x.double().numpy())
    x = scaler.transform(train.x.double().numpy())
    settings = {"C": 1 / (strength * len(x)), "tol": 1e-10, "max_iter": 20_000}
    return scaler, [LogisticRegression(**settings).fit(x, column) for column in train.y.numpy().T]


def sklearn_scores(train, test, strength):
    scaler, models = sklearn_probe(train, strength)
    x = scaler.transform(test.x.double().numpy())
    return np.stack([model.decision_function(x) for model in models], axis=1)


def macro(y, scores):
    return np.mean([average_precision_score(y[:, k], scores[:, k]) for k in range(y.shape[1]) if y[:, k].any()])


@pytest.mark.parametrize(("n", "dim"), [(250, 8), (30, 50)])  # more rows than features, and fewer
def test_every_minimum_of_every_class_is_sklearns(n, dim):
    train = tagged(n, dim)
    train.y[:, 3] = 0
    train.y[:2, 3] = 1  # a rare class
    path = OneVsRestPath(train)
    for strength in (1.0, 1e-1, 1e-3):
        found = path.solve(strength)
        _, models = sklearn_probe(train, strength)
        np.testing.assert_allclose(found.weight.numpy(), np.stack([m.coef_[0] for m in models], axis=1), atol=2e-4)
        np.testing.assert_allclose(found.bias.numpy(), [m.intercept_[0] for m in models], atol=5e-4)


def test_the_probe_is_sklearns_with_the_strength_that_held_out_images_choose():
    train, test = tagged(70, noise=3), tagged(90, seed=5, noise=3)
    strengths = (1.0, 1e-1, 1e-3)
    part = _parts_of_images(train.y, 5, key("linear probe", 0))
    values = []
    for strength in strengths:
        scores, labels = [], []
        for turn in range(5):
            scores.append(sklearn_scores(train[part != turn], train[part == turn], strength))
            labels.append(train.y[part == turn].numpy())
        values.append(macro(np.concatenate(labels), np.concatenate(scores)))
    assert len(set(values)) == 3
    best = strengths[int(np.argmax(values))]
    mean, micro = LinearProbe(strengths=strengths)(train, HeldOut(test))
    assert f"strength {best:g} ({100 * max(values):.1f} % mean average precision in 5-fold" in mean.detail
    scores = sklearn_scores(train, test, best)
    assert mean.value == pytest.approx(macro(test.y.numpy(), scores), abs=1e-3)
    assert micro.value == pytest.approx(average_precision_score(test.y.numpy().ravel(), scores.ravel()), abs=1e-3)
    assert mean.low < mean.value < mean.high
    assert (mean.metric, mean.n) == ("mean_average_precision", 90)


@pytest.mark.parametrize("n", [60, 1100])  # cross-validation, and a single split
def test_test_labels_never_touch_the_choice(n):
    train, test = tagged(n), tagged(50, seed=2)
    shuffled = Features(test.x.flip(0), test.y.roll(1, 0))
    one, other = (LinearProbe()(train, HeldOut(part))[0] for part in (test, shuffled))
    assert one.detail.split(";")[0] == other.detail.split(";")[0]
    assert ("cross-validation" in one.detail) == (n == 60)
    assert one.value != other.value


def test_every_part_has_its_share_of_a_rare_class():
    labels = torch.zeros(100, 3, dtype=torch.uint8)
    labels[:90, 0] = 1
    labels[::10, 1] = 1  # ten images, nine of them also have class 0
    labels[3, 2] = 1
    part = _parts_of_images(labels, 5, 7)
    assert torch.bincount(part[labels[:, 1] == 1], minlength=5).tolist() == [2] * 5
    assert part[3] == 5  # the only image of its class is always fitted


def test_classes_without_train_images_get_a_constant_score_and_are_named():
    train, test = tagged(120), tagged(60, seed=3)
    train.y[:, 1] = 0
    train.y[:, 2] = 1  # all of train: constant too
    train, held = (Features(part.x, part.y, ("sky", "sea", "sand", "sun")) for part in (train, test))
    seen = [0, 3]
    shares = test.y[:, 1:3].float().mean(0)
    for evaluator in (LinearProbe(strengths=(0.01,)), KNN()):
        mean = evaluator(train, HeldOut(held))[0]
        alone = evaluator(Features(train.x, train.y[:, seen]), HeldOut(Features(test.x, test.y[:, seen])))[0]
        assert mean.value == pytest.approx((2 * alone.value + float(shares.sum())) / 4, abs=1e-6)
        words = f"1 class without train images has a constant score: sea ({int(test.y[:, 1].sum())} test images)"
        assert words in mean.detail
        assert "constant" not in alone.detail
    scores = knn_scores(train, test.x)
    assert (scores[:, 1] == 0).all()
    torch.testing.assert_close(scores[:, 2], torch.ones(60))


@pytest.mark.parametrize("weighting", ["exponential", "uniform"])
def test_knn_scores_match_the_plain_loop(weighting):
    bank, queries = tagged(40, noise=3), tagged(11, seed=4, noise=3)
    found = knn_scores(bank, queries.x, k=7, temperature=0.2, weighting=weighting, chunk=4)
    for row, query in zip(found, queries.x, strict=True):
        similarity = F.cosine_similarity(query[None], bank.x, dim=1)
        nearest = sorted(range(40), key=lambda i: -similarity[i])[:7]
        votes = [float((similarity[i] / 0.2).exp()) if weighting == "exponential" else 1.0 for i in nearest]
        expected = [sum(v for v, i in zip(votes, nearest, strict=True) if bank.y[i, k]) / sum(votes) for k in range(4)]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)
    mean = KNN(k=7, temperature=0.2, weighting=weighting)(bank, HeldOut(queries))[0]
    assert mean.value == pytest.approx(macro(queries.y.numpy(), found.numpy()))


@pytest.mark.parametrize("alone", [False, True])
def test_images_that_share_a_class_are_relevant_to_each_other(alone):
    queries = tagged(17, seed=5, noise=3)
    gallery = queries if alone else tagged(40, noise=3)
    found = retrieve(gallery, queries, leave_one_out=alone, chunk=4)
    expected = []
    for number in range(17):
        similarity = F.cosine_similarity(queries.x[number][None], gallery.x, dim=1)
        order = [i for i in sorted(range(len(gallery)), key=lambda i: -similarity[i]) if not (alone and i == number)]
        right = [bool((queries.y[number] & gallery.y[i]).any()) for i in order]
        if any(right):
            at = [rank for rank, hit in enumerate(right, start=1) if hit]
            expected.append((np.mean([sum(right[:rank]) / rank for rank in at]), at[0], number))
    precision, first, places = zip(*expected, strict=True)
    assert len(expected) < 17  # images without any class retrieve nothing
    assert found.precision.tolist() == pytest.approx(precision)
    assert tuple(found.first.tolist()) == first
    assert tuple(found.queries.tolist()) == places
    score = Retrieval(gallery="test" if alone else "train")(gallery, HeldOut(queries))[0]
    assert score.n == len(expected)


class Signs(Source):
    """Multi-hot images: a bright top half, a bright left half, both or neither."""

    class_names = ["top", "left", "never"]  # noqa: RUF012

    def __init__(self, num_items, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.num_items, self.reads = num_items, 0
        self.labels = np.zeros((num_items, 3), np.uint8)
        self.labels[:, :2] = rng.random((num_items, 2)) < 0.5
        self.pixels = rng.integers(0, 120, (num_items, 12, 12, 3))
        self.pixels[self.labels[:, 0] == 1, :6] += 60
        self.pixels[self.labels[:, 1] == 1, :, :6] += 60
        self.pixels = self.pixels.astype(np.uint8)

    def read(self, items):
        self.reads += 1
        return Images(self.pixels[items], self.labels[items])


class Scenes(Source):
    """The first images of a generator whose scenes have several fractals, as a finite source."""

    def __init__(self, start, num_items):
        super().__init__()
        self.stream = make_stream("ifs_multi", size=32, points=300, classes=6, fractals=(1, 3))
        self.start, self.num_items, self.class_names = start, num_items, [str(label) for label in range(6)]

    def read(self, items):
        batch = self.stream.batch(np.asarray(items) + self.start)
        return Images(batch.images, batch.labels)


@pytest.fixture
def backbones():
    torch.manual_seed(0)
    halves = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return {"pretrained": halves, "random": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())}


ALL = {
    "linear": LinearProbe(),
    "knn": KNN(),
    "retrieval": Retrieval(),
    "finetune": Finetune(epochs=1, padding=0, flip=False),
}


def test_a_data_set_is_evaluated_and_images_of_no_class_count(backbones):
    train, test = Signs(80, 0), Signs(40, 1)
    result = evaluate_backbones(backbones, train, test, dataset="signs", evaluators=ALL)
    assert (train.reads, test.reads) == (1, 1)
    assert (train.labels.sum(1) == 0).any()
    rows = {(row["protocol"], row["backbone"]): row for row in result.main_rows()}
    assert {row["metric"] for row in rows.values()} == {"mean_average_precision"}
    assert {(row["train_images"], row["test_images"]) for row in rows.values()} == {(80, 40)}
    assert rows["linear", "pretrained"]["n"] == 40
    assert rows["linear", "pretrained"]["value"] > 0.95
    assert rows["knn", "pretrained"]["value"] > 0.9
    assert rows["linear", "pretrained"]["value"] > rows["linear", "random"]["value"]
    assert "2 of 3 classes" in rows["linear", "pretrained"]["detail"]


def test_labels_of_a_generator_are_taken(backbones):
    result = evaluate_backbones(
        backbones, Scenes(0, 60), Scenes(1000, 40), dataset="scenes", evaluators={"knn": KNN(), "linear": LinearProbe()}
    )
    assert [row["n"] for row in result.main_rows()] == [40] * 4
    assert all(0 < row["low"] < row["value"] < row["high"] < 1 for row in result.main_rows())


def test_finetuning_learns_several_labels(backbones):
    parts = [Signs(96, 0), Signs(40, 1)]
    network = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    train, test = (LabeledImages(part.pixels, part.labels, network, Preprocessing()) for part in parts)
    options = {"batch_size": 16, "learning_rate": 0.01, "padding": 0, "flip": False}
    short, long = (Finetune(epochs=epochs, **options)(train, HeldOut(test))[0] for epochs in (1, 8))
    assert long.value > 0.95
    assert long.value >= short.value
    assert "mean train loss" in long.detail


class Plain(Evaluator):
    """An evaluator that does not say it can use several labels."""

    def __call__(self, train, test):
        return [Score("accuracy", 0.5, None, None, 1)]


def test_evaluators_for_one_label_each_are_refused_before_any_feature(backbones):
    train = Signs(30, 0)
    evaluators = {**ALL, "few_shot": FewShot(), "plain": Plain()}
    words = (
        r"signs \(train\): its images may have several labels each, and few_shot, plain need one label each; "
        "linear, knn, finetune and retrieval can use several"
    )
    with pytest.raises(ValueError, match=words):
        evaluate_backbones({"random": nn.Identity()}, train, Signs(10, 1), dataset="signs", evaluators=evaluators)
    can = {name for name in EVALUATORS if EVALUATORS[name].multi_label}
    assert set(MULTI_LABEL.replace(" and ", ", ").split(", ")) == can


def test_functions_for_one_label_each_name_the_evaluator():
    train, test = tagged(30), tagged(10, seed=1)
    for function, evaluator in ((linear_probe, "LinearProbe"), (knn, "KNN"), (few_shot, "LinearProbe")):
        with pytest.raises(ValueError, match=f"multi-hot: use the evaluator {evaluator}"):
            function(train, test)
    with pytest.raises(ValueError, match="use the evaluator Finetune"):
        finetune(nn.Flatten(), *(part for s in (Signs(8, 0), Signs(8, 1)) for part in (s.pixels, s.labels)))


ALIKE = "train have labels of 3 classes, multi-hot, those of test"
UNSUITABLE = {
    r"\(train\): all images have the same labels": lambda train, test: train.labels.fill(1),
    r"\(test\): no image has any of the 3 classes": lambda train, test: test.labels.fill(0),
    r"\(train\): multi-hot labels are 0 or 1, got values from 0 to 3": lambda train, test: train.labels.put(0, 3),
    f"{ALIKE} labels of 2 classes": lambda train, test: setattr(test, "labels", test.labels[:, :2]),
    f"{ALIKE} one label each": lambda train, test: setattr(test, "labels", test.labels[:, 0].astype(int)),
}


@pytest.mark.parametrize("words", UNSUITABLE)
def test_unsuitable_labels_are_refused(backbones, words):
    train, test = Signs(30, 0), Signs(20, 1)
    UNSUITABLE[words](train, test)
    with pytest.raises(ValueError, match=words):
        evaluate_backbones(backbones, train, test, dataset="signs", evaluators={"knn": KNN()})


def test_label_arrays_are_of_one_of_two_kinds():
    assert label_array([3, -1]).dtype == np.int64
    assert label_array(np.array([[True, False]])).dtype == np.uint8
    for labels in (np.zeros((2, 3, 1)), np.zeros((2, 0))):
        with pytest.raises(ValueError, match="labels are int64"):
            label_array(labels)
    with pytest.raises(ValueError, match="0 or 1"):
        label_array([[0.5, 1.0]])
