import io
import json
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from wildfern.ssl.data import Images, Source
from wildfern.ssl.evaluation import (
    KNN,
    EvaluationResult,
    Evaluator,
    FewShot,
    Finetune,
    LinearProbe,
    Preprocessing,
    ProtocolsFailed,
    Retrieval,
    Score,
    TransformedBackbone,
    evaluate_backbones,
    extract_features,
    knn,
    linear_probe,
)
from wildfern.ssl.evaluation.preprocessing import resize_center_crop, resize_center_crop_masks
from wildfern.ssl.tracking import Progress


class Stripes(Source):
    """A labeled source: stripes along one axis or the other; every seventh image has no label, sizes may differ."""

    class_names = ("rows", "columns")
    num_classes: int | None = 2

    def __init__(self, num_items, seed, ragged=False):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.num_items, self.ragged = num_items, ragged
        self.labels = np.arange(num_items) % 2
        self.pixels = rng.integers(0, 200, (num_items, 12, 12, 3))
        self.pixels[self.labels == 0, ::2] += 50
        self.pixels[self.labels == 1, :, ::2] += 50
        self.labels[::7] = -1
        self.pixels = self.pixels.astype(np.uint8)
        self.reads, self.masks = 0, None

    def read(self, items):
        self.reads += 1
        pixels = self.pixels[items]
        if self.ragged:
            pixels = [image[: 12 - i % 2] for i, image in zip(items, pixels, strict=True)]
        return Images(pixels, self.labels[items], masks=None if self.masks is None else self.masks[items])


@pytest.fixture
def backbones():
    torch.manual_seed(0)
    edges = nn.Conv2d(3, 2, 2, bias=False)
    edges.weight.data[:] = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]], [[1.0, -1.0], [1.0, -1.0]]])[:, None]

    class Energy(nn.Module):
        def forward(self, x):
            return x.square().mean((2, 3))

    return {
        "pretrained": nn.Sequential(edges, Energy()),
        "random": nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }


def printed(evaluation, width=160):
    console = Console(width=width, file=io.StringIO())
    console.print(evaluation.table())
    return console.file.getvalue()


BOTH = {"linear": LinearProbe(), "knn": KNN()}


@pytest.mark.parametrize("evaluator", [LinearProbe(), KNN(), FewShot(shots=2, seeds=2), Finetune(epochs=1)])
def test_a_diverged_backbone_gets_no_score(backbones, evaluator):
    backbones["pretrained"][0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="diverged"):
        evaluate_backbones(backbones, Stripes(140, 0), Stripes(70, 1), dataset="stripes", evaluators={"it": evaluator})


class Reading(Evaluator):
    """Reads maps, as an evaluator of another package may."""

    needs = "maps"

    def __call__(self, train, test):
        return [Score("images", sum(len(chunk.y) for chunk in train), None, None, 1, share=False)]


def test_progress_is_counted_and_changes_no_score(backbones):
    backbones["random"].maps = backbones["pretrained"].maps = lambda images: [images]
    evaluators = {**BOTH, "few": FewShot(shots=2, seeds=2), "finetune": Finetune(epochs=2), "mine": Reading()}
    evaluators["retrieval"] = Retrieval()
    told = []
    results = [
        evaluate_backbones(
            backbones, Stripes(140, 0), Stripes(70, 1), dataset="s", evaluators=evaluators, batch_size=64, **watched
        )
        for watched in ({}, {"progress": Progress(told.append, every=0.0)})
    ]
    assert results[0] == results[1]
    features = [line for line in told if line.startswith("s: features of train")]
    assert features == [
        "s: features of train",
        *(f"s: features of train: {done}/140 images" for done in (0, 37, 70, 107, 140, 140)),
    ]
    assert "s: linear of random: part 2 of 5 held out, strength 3 of 7" in told
    assert "s: linear of pretrained: all of train, strength 1 of 1" in told
    assert "s: knn of pretrained: 0/60 test images" in told
    assert "s: few of pretrained: 1/2 draws" in told
    assert "s: finetune of random: epoch 2 of 2, 1/2 batches" in told
    assert "s: mine of pretrained: reading train, 140/140 images" in told
    assert "s: retrieval of pretrained: 0/60 test images" in told


def test_rows_hold_what_the_functions_give_and_the_baseline_comes_first(backbones):
    train, test = Stripes(140, 0), Stripes(70, 1)
    evaluators = {**BOTH, "few": FewShot(shots=2, seeds=2)}
    result = evaluate_backbones(backbones, train, test, dataset="stripes", evaluators=evaluators)
    assert [(row["protocol"], row["backbone"]) for row in result.main_rows()] == [
        (protocol, name) for protocol in evaluators for name in ("random", "pretrained")
    ]
    for name, backbone in backbones.items():
        features = [
            extract_features(backbone, [(source.pixels[source.labels >= 0], source.labels[source.labels >= 0])])
            for source in (train, test)
        ]
        for protocol, by_hand in (("linear", linear_probe), ("knn", knn)):
            row = next(row for row in result.rows if row["backbone"] == name and row["protocol"] == protocol)
            assert (row["metric"], row["value"]) == ("accuracy", by_hand(*features).accuracy)
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n"] == len(features[1])


def test_images_are_read_once_for_all_backbones_and_protocols(backbones):
    train, test = Stripes(140, 0), Stripes(70, 1)
    evaluators = {**BOTH, "finetune": Finetune(epochs=1)}
    evaluate_backbones(backbones, train, test, dataset="stripes", evaluators=evaluators)
    assert (train.reads, test.reads) == (1, 1)


def test_json_is_read_back_and_differences_are_in_points(backbones):
    result = evaluate_backbones(
        backbones, Stripes(140, 0), Stripes(70, 1), dataset="stripes", evaluators={"knn": KNN()}
    )
    stored = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert set(stored["rows"][0]) == {
        "dataset", "protocol", "backbone", "metric", "value", "low", "high", "n", "share", "detail", "difference",
        "difference_low", "difference_high", "breakdown", "image_size", "train_images", "train_split", "test_images",
        "test_split",
    }  # fmt: skip
    untrained, pretrained = (row for row in stored["rows"] if row["metric"] == "accuracy")
    assert untrained["difference"] is None
    assert pretrained["difference"] == pytest.approx(100 * (pretrained["value"] - untrained["value"]))
    assert pretrained["difference_low"] <= pretrained["difference"] <= pretrained["difference_high"]
    assert untrained["difference_low"] is None
    assert stored["baseline"] == "random"
    assert "cosine" in stored["protocols"]["knn"]
    assert EvaluationResult.from_json(stored) == result


def test_rows_of_earlier_versions_are_read():
    row = {"dataset": "digits", "protocol": "knn, 5 a class", "detail": "draws"}
    rows = [
        {**row, "backbone": "random", "accuracy": 0.5, "std": None, "difference": None},
        {**row, "backbone": "pretrained", "accuracy": 0.75, "std": 0.125, "difference": 25.0},
    ]
    result = EvaluationResult.from_json({"baseline": "random", "protocols": {}, "rows": rows})
    assert result.rows[0] == {
        **row, "backbone": "random", "metric": "accuracy", "value": 0.5, "low": None, "high": None, "n": None, "share": True,
        "difference_low": None, "difference_high": None, "breakdown": False,
    }  # fmt: skip
    assert (result.rows[1]["low"], result.rows[1]["high"]) == (0.625, 0.875)
    assert result.difference(result.rows[1]) == 25
    assert "62.5–87.5" in printed(result)


def test_the_table_has_a_line_for_each_protocol_and_says_what_it_is(backbones):
    result = evaluate_backbones(backbones, Stripes(140, 0), Stripes(70, 1), dataset="stripes", evaluators=BOTH)
    text = printed(result)
    for words in ("L2-regularized logistic regression", "20% of train held out", "k=20", "train as bank", "stripes"):
        assert words in " ".join(text.split())
    lines = [line for line in text.splitlines() if "accuracy" in line and "%" in line and "–" in line]
    assert len(lines) == 2
    for line, protocol in zip(lines, BOTH, strict=True):
        untrained, pretrained = (row for row in result.main_rows() if row["protocol"] == protocol)
        for words in (
            protocol,
            f"{100 * pretrained['value']:.1f} %",
            f"{100 * pretrained['low']:.1f}–{100 * pretrained['high']:.1f}",
            f"{100 * untrained['value']:.1f} %",
            f"{100 * (pretrained['value'] - untrained['value']):+.1f}",
        ):
            assert words in line


def test_finetuning_ragged_images_and_several_data_sets_add_up(backbones):
    train, test = Stripes(40, 0, ragged=True), Stripes(20, 1, ragged=True)
    settings = Preprocessing(size=10)

    def on(dataset, **evaluators):
        return evaluate_backbones(
            backbones, train, test, dataset=dataset, evaluators=evaluators, preprocessing=settings
        )

    first, second = on("one", finetune=Finetune(epochs=1)), on("two", knn=KNN())
    both = first + second
    assert [row["dataset"] for row in both.main_rows()] == ["one", "one", "two", "two"]
    assert set(both.protocols) == {"finetune", "knn"}
    with pytest.raises(ValueError, match="do not add up"):
        both + on("two", knn=KNN(k=3))
    with pytest.raises(ValueError, match="do not add up"):
        both + EvaluationResult((), {}, baseline="start")


class Mapped(nn.Module):
    """A backbone with maps and tokens whose batch norm would show training mode."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images):
        return self.maps(images)[-1].mean((2, 3))

    def maps(self, images):
        map = self.norm(self.first(images))
        return [map, nn.functional.avg_pool2d(map, 2)]

    def tokens(self, images):
        return self.maps(images)[1].flatten(2).transpose(1, 2)


class Collected(Evaluator):
    """Stores its arguments."""

    def __init__(self, needs, labels=True):
        self.needs, self.needs_labels, self.seen = needs, labels, {}

    def __call__(self, train, test):
        head = nn.Linear(1, 1)
        for chunk in train:
            assert chunk.y.requires_grad is False
            head(torch.ones(1, 1)).sum().backward()  # gradients of the evaluator's own are on
        self.seen = {"train": [list(train), list(train)], "test": list(test.read())}
        self.class_names = train.class_names
        return [Score("images", float(sum(len(chunk.y) for chunk in self.seen["test"])), None, None, 1, share=False)]


@pytest.mark.parametrize("ragged", [False, True])
def test_maps_and_tokens_are_streamed_as_often_as_train_is_iterated(ragged):
    torch.manual_seed(0)
    backbones = {"random": Mapped()}
    train, test = Stripes(100, 0, ragged), Stripes(41, 1, ragged)
    evaluators = {"maps": Collected("maps"), "tokens": Collected("tokens")}
    result = evaluate_backbones(
        backbones, train, test, dataset="s", evaluators=evaluators, preprocessing=Preprocessing(8)
    )
    labeled = test.labels >= 0
    pixels = test.read(np.flatnonzero(labeled)).pixels
    images = (resize_center_crop(pixels, 8) - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    backbones["random"].eval()
    with torch.no_grad():
        expected = backbones["random"].maps(images)
    maps = evaluators["maps"].seen["test"]
    assert len(maps) > 1
    for level, whole in enumerate(expected):
        torch.testing.assert_close(torch.cat([chunk.x[level] for chunk in maps]), whole)
    tokens = torch.cat([chunk.x for chunk in evaluators["tokens"].seen["test"]])
    torch.testing.assert_close(tokens, expected[1].flatten(2).transpose(1, 2))
    assert torch.cat([chunk.y for chunk in maps]).tolist() == test.labels[labeled].tolist()
    one, two = evaluators["maps"].seen["train"]
    assert torch.equal(torch.cat([c.x[0] for c in one]), torch.cat([c.x[0] for c in two]))
    assert evaluators["maps"].class_names == ("rows", "columns")
    assert [row["value"] for row in result.rows] == [labeled.sum()] * 2


def test_masks_go_with_their_images_and_unlabeled_images_are_kept_on_demand():
    train, test = Stripes(20, 0), Stripes(20, 1)
    masks = np.random.default_rng(0).integers(0, 3, (20, 12, 12)).astype(np.uint8)
    train.masks = test.masks = masks
    evaluator = Collected("maps", labels=False)
    evaluate_backbones(
        {"random": Mapped()}, train, test, dataset="s", evaluators={"maps": evaluator},
        preprocessing=Preprocessing(12),
    )  # fmt: skip
    found = evaluator.seen["test"]
    assert torch.cat([chunk.y for chunk in found]).tolist() == test.labels.tolist()
    assert torch.equal(torch.cat([chunk.masks for chunk in found]), torch.from_numpy(masks))


def test_masks_are_cropped_as_images_are():
    mask = np.zeros((12, 20), np.uint8)
    mask[:, 4:10] = 200  # the left half of the center crop
    image = np.repeat(mask[:, :, None], 3, 2)
    [small] = resize_center_crop_masks([mask], 6)
    assert set(small.unique().tolist()) == {0, 200}
    expected = (resize_center_crop(image[None], 6)[0, 0] * 255).round()
    away = [1, 4, 5]  # from the edges of what is marked, which are smoothed in the image
    assert torch.equal(small.float()[:, away], expected[:, away])


def test_a_backbone_without_maps_is_refused(backbones):
    evaluators = {"maps": Collected("maps")}
    for wrapped in (backbones, {n: TransformedBackbone(nn.Identity(), b) for n, b in backbones.items()}):
        with pytest.raises(ValueError, match=r"Sequential has no method maps\(images\)"):
            evaluate_backbones(wrapped, Stripes(20, 0), Stripes(20, 1), dataset="s", evaluators=evaluators)


def test_a_transformed_backbone_transforms_first():
    torch.manual_seed(0)
    inner, images = Mapped().eval(), torch.rand(2, 3, 8, 8)
    outer = TransformedBackbone(nn.Hardtanh(0, 0.5), inner)
    clipped = images.clamp(max=0.5)
    assert torch.equal(outer(images), inner(clipped))
    assert torch.equal(outer.maps(images)[1], inner.maps(clipped)[1])
    assert torch.equal(outer.tokens(images), inner.tokens(clipped))


def test_a_protocol_that_fails_for_one_backbone_loses_none_of_the_other_scores(backbones):
    class Fails(Evaluator):
        def __call__(self, train, test):
            if train.x.shape[1] == 2:
                raise ValueError("these features are odd")
            return KNN(k=3)(train, test)

    wide = {
        **backbones,
        "wide": nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }  # not 2 features
    settings = {"dataset": "s", "evaluators": {"fails": Fails(), "knn": KNN(k=3)}}
    with pytest.raises(ProtocolsFailed, match=r"^s: fails: these features are odd$") as caught:
        evaluate_backbones(wide, Stripes(60, 0), Stripes(30, 1), **settings)
    whole = evaluate_backbones(wide, Stripes(60, 0), Stripes(30, 1), dataset="s", evaluators={"knn": KNN(k=3)})
    result = caught.value.result
    assert [row for row in result.rows if row["protocol"] == "knn"] == list(whole.rows)
    assert {row["backbone"] for row in result.rows if row["protocol"] == "fails"} == {"random", "wide"}
    assert "wide" in str(result)


def test_rows_that_are_compared_with_another_baseline_get_its_intervals(backbones):
    """What a run keeps of an evaluation against something else."""
    three = {**backbones, "pixels": nn.Flatten()}
    settings = {"dataset": "s", "evaluators": {"knn": KNN(k=3), "few_shot": FewShot(shots=3, seeds=3)}}
    sources = Stripes(60, 0), Stripes(30, 1)
    against_random = evaluate_backbones(backbones, *sources, **settings)
    kept = evaluate_backbones(three, *sources, baseline="pixels", **settings).only(backbones, "random")
    assert sorted(map(repr, kept.as_json()["rows"])) == sorted(map(repr, against_random.as_json()["rows"]))
    assert any(row["difference_low"] is not None for row in kept.rows)
    stored = EvaluationResult.from_json(evaluate_backbones(three, *sources, baseline="pixels", **settings).as_json())
    assert all(row["difference_low"] is None for row in stored.only(backbones, "random").rows)


def test_where_no_protocol_works_its_error_is_raised(backbones):
    class Fails(Evaluator):
        def __call__(self, train, test):
            raise ValueError("these features are odd")

    with pytest.raises(ValueError, match=r"^these features are odd$") as caught:
        evaluate_backbones(backbones, Stripes(20, 0), Stripes(20, 1), dataset="s", evaluators={"fails": Fails()})
    assert not isinstance(caught.value, ProtocolsFailed)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (Score("a", float("nan"), None, None, 10), "value of the metric a must be a finite number, got nan"),
        (Score("a", "0.5", None, None, 10), "value of the metric a must be a finite number, got '0.5'"),
        (Score("a", 0.5, float("inf"), 1.0, 10), "low of the metric a must be a finite number, got inf"),
        (Score("a", 0.5, 0.4, 0.6, 10, per_image=np.ones(3)), "has 3 values, but n is 10 test images"),
    ],
)
def test_impossible_scores_are_refused(score, words, backbones):
    class Odd(Evaluator):
        def __call__(self, train, test):
            return [score]

    with pytest.raises(ValueError, match=re.escape(words)):
        evaluate_backbones(backbones, Stripes(20, 0), Stripes(20, 1), dataset="s", evaluators={"odd": Odd()})


def test_numbers_of_numpy_and_torch_become_those_of_json(backbones):
    class Odd(Evaluator):
        def __call__(self, train, test):
            return [Score("a", torch.tensor(0.5), np.float32(0.25), np.float64(0.75), np.int64(10))]

    result = evaluate_backbones(backbones, Stripes(20, 0), Stripes(20, 1), dataset="s", evaluators={"odd": Odd()})
    row = json.loads(json.dumps(result.as_json()))["rows"][0]
    assert [row[key] for key in ("value", "low", "high", "n")] == [0.5, 0.25, 0.75, 10]


def test_a_protocol_with_a_bug_loses_no_other_scores_and_its_line_is_named(backbones):
    class Bug(Evaluator):
        def __call__(self, train, test):
            raise KeyError("x")

    settings = {"dataset": "s", "evaluators": {"bug": Bug(), "knn": KNN(k=3)}}
    with pytest.raises(ProtocolsFailed, match=r"^s: bug: KeyError: 'x' \(test_protocol\.py, line \d+\)$") as caught:
        evaluate_backbones(backbones, Stripes(60, 0), Stripes(30, 1), **settings)
    assert {row["protocol"] for row in caught.value.result.rows} == {"knn"}
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("scores", "words"),
    [([], "return at least one Score"), (None, "return a list of Score, got None"), ([0.5], "return a list of Score")],
)
def test_an_evaluator_must_return_scores(scores, words, backbones):
    class Odd(Evaluator):
        def __call__(self, train, test):
            return scores

    with pytest.raises(ValueError, match=f"the evaluator of odd must {words}"):
        evaluate_backbones(backbones, Stripes(20, 0), Stripes(20, 1), dataset="s", evaluators={"odd": Odd()})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": None}, r"stripes \(train\): these images have no labels"),
        ({"num_items": None}, "endless"),
        ({"labels": np.full(40, -1)}, "no image has a label"),
        ({"labels": np.full(40, 1)}, "of one class"),
    ],
)
def test_unsuitable_sources_are_refused(backbones, change, words):
    train, test = Stripes(40, 0), Stripes(20, 1)
    for name, value in change.items():
        setattr(train, name, value)
    with pytest.raises(ValueError, match=words):
        evaluate_backbones(backbones, train, test, dataset="stripes", evaluators=BOTH)


def test_a_baseline_and_a_protocol_are_needed(backbones):
    sources = Stripes(40, 0), Stripes(20, 1)
    with pytest.raises(ValueError, match="no backbone named 'random'"):
        evaluate_backbones({"pretrained": backbones["pretrained"]}, *sources, dataset="stripes", evaluators=BOTH)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_backbones(backbones, *sources, dataset="stripes", evaluators={})


def test_rows_say_how_many_labeled_images_of_which_split_were_used(backbones):
    train, test = Stripes(140, 0), Stripes(70, 1)
    test.split_words = "folder valid"
    evaluators = {"knn": KNN(), "few": FewShot(shots=2, seeds=1)}
    result = evaluate_backbones(backbones, train, test, dataset="stripes", evaluators=evaluators)
    counts = {key: {row[key] for row in result.rows} for key in result.rows[0] if key.startswith(("train_", "test_"))}
    assert counts == {
        "train_images": {120}, "train_split": {""}, "test_images": {60}, "test_split": {"folder valid"}
    }  # fmt: skip
    assert printed(result).count("train: 120 images · test: 60 images (folder valid)") == 1
    stored = EvaluationResult.from_json(json.loads(json.dumps(result.as_json())))
    assert printed(stored) == printed(result)
    earlier = [{k: v for k, v in row.items() if k not in counts} for row in result.rows]
    text = printed(EvaluationResult.from_json({"rows": earlier}))
    assert "stripes" in text
    assert "train:" not in text


def test_images_of_a_stream_are_counted_where_it_is_read_to_its_end():
    class Peek(Evaluator):
        """Reads test alone."""

        needs = "maps"

        def __call__(self, train, test):
            next(iter(train))
            return [Score("images", float(sum(len(chunk.y) for chunk in test.read())), None, None, 1, share=False)]

    evaluators = {"all": Collected("maps"), "peek": Peek()}
    for names, expected in (("peek", None), ("all", 85), (("all", "peek"), 85)):
        chosen = {name: evaluator for name, evaluator in evaluators.items() if name in names}
        result = evaluate_backbones(
            {"random": Mapped()}, Stripes(100, 0), Stripes(41, 1), dataset="s", evaluators=chosen,
            preprocessing=Preprocessing(8),
        )  # fmt: skip
        assert {row["train_images"] for row in result.rows} == {expected}
        assert {row["test_images"] for row in result.rows} == {35}


def unlike_train(source, label=2, images=3):
    """The same source with a class that train does not have."""
    places = np.flatnonzero(source.labels >= 0)[:images]
    source.labels[places] = label
    source.class_names = ("rows", "columns", "fern", "moss")
    return source


def test_classes_of_test_without_train_images_are_named_and_count_as_wrong(backbones):
    train, test = Stripes(140, 0), unlike_train(Stripes(70, 1))
    train.class_names = test.class_names
    evaluators = {**BOTH, "few": FewShot(shots=5, seeds=2), "finetune": Finetune(epochs=1), "retrieval": Retrieval()}
    result = evaluate_backbones(backbones, train, test, dataset="stripes", evaluators=evaluators)
    note = "1 class of test has no train image: fern (3 test images)"
    assert result.notes == {"stripes": [note]}
    assert note in printed(result)
    assert EvaluationResult.from_json(json.loads(json.dumps(result.as_json()))).notes == result.notes
    left_out = (
        "3 test images without any of its class in the gallery left out; classes without train images: fern (3 test"
    )
    wrong = "counted as wrong, since no train image has their class: 3 of 60 test images, fern (3 test images)"
    for row in result.rows:
        if row["breakdown"] or row["metric"] == "micro_average_precision":
            continue
        retrieval = row["protocol"] == "retrieval"
        assert row["n"] == (57 if retrieval else 60)
        assert (left_out if retrieval else wrong) in row["detail"]
        if row["metric"] == "accuracy":
            assert row["value"] <= 57 / 60
    train.note("two files were passed over")
    noted = evaluate_backbones(backbones, train, Stripes(70, 1), dataset="plain", evaluators={"knn": KNN()})
    assert noted.notes == {"plain": ["two files were passed over"]}
    assert (result + noted).notes == result.notes | noted.notes


def test_many_classes_are_not_all_named(backbones):
    train, test = Stripes(140, 0), Stripes(70, 1)
    test.labels[test.labels == 1] = np.arange(30) + 10
    [note] = evaluate_backbones(backbones, train, test, dataset="s", evaluators={"knn": KNN()}).notes["s"]
    assert note == (
        "30 classes of test have no train image: 10 (1 test image), "
        + ", ".join(f"{label} (1)" for label in range(11, 20))
        + " and 20 more"
    )


def test_classes_numbered_in_two_ways_are_refused(backbones):
    train, test = Stripes(40, 0), Stripes(20, 1)
    test.class_names = ("columns", "rows")
    words = "label 0 is the class 'rows' in train and 'columns' in test; both must number their classes in the same way"
    with pytest.raises(ValueError, match=words):
        evaluate_backbones(backbones, train, test, dataset="s", evaluators=BOTH)


def test_an_empty_split_is_refused(backbones):
    test = Stripes(20, 1)
    test.num_items = 0
    with pytest.raises(ValueError, match=r"stripes \(test\): this split has no images"):
        evaluate_backbones(backbones, Stripes(40, 0), test, dataset="stripes", evaluators=BOTH)


@pytest.mark.parametrize("width", [60, 80])
def test_the_table_is_readable_in_narrow_terminals(width):
    row = {
        "value": 0.6413, "low": 0.6, "high": 0.68, "n": 539, "share": True, "detail": "",
        "train_images": 1258, "train_split": "", "test_images": 539, "test_split": "folder valid",
    }  # fmt: skip
    long = "folder:/home/someone/datasets/plantvillage_color_leaves/images_of_2024 (test_fraction=0.3)"
    protocols = {"linear": "accuracy", "knn (k=5, weighting=uniform)": "mean_average_precision"}
    rows = [
        {"dataset": dataset, "protocol": protocol, "backbone": backbone, "metric": metric, **row}
        for dataset in ("digits", long)
        for protocol, metric in protocols.items()
        for backbone in ("random", "vit_small_patch14_dinov2", "resnet50")
    ]
    result = EvaluationResult(tuple(rows), {"linear": "a sentence about the probe, " * 4})
    text = printed(result, width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert text.count("1,258 images · test: 539 images (folder valid)") == 2
    assert text.count("+0.0") == 8
    assert long.replace(" ", "") in "".join(text.split())
    words = {word for line in lines for word in line.split()}
    if width == 80:
        for word in (
            "vit_small_",
            "patch14_dinov2",
            "precision",
            "weighting=",
            "uniform)",
            "gain",
            "random",
        ):
            assert word in words
