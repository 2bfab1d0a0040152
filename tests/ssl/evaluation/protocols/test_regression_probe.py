import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from wildfern.generators.counter_rng import key
from wildfern.ssl.data import Images, Source, open_source
from wildfern.ssl.evaluation import Evaluator, Features, FeatureStore, HeldOut, Preprocessing, Score, evaluate_backbones
from wildfern.ssl.evaluation.labeled_chunks import label_array, labeled_chunks
from wildfern.ssl.evaluation.protocols.regression_probe import STRENGTHS, RegressionProbe
from wildfern.ssl.evaluation.stratified import class_ranks

WEIGHTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
NOISE = torch.tensor([3.0, 30.0, 0.01])


def features(n, seed, targets=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=generator)
    y = x @ WEIGHTS * torch.tensor([1.0, 10.0, 0.1]) + torch.randn(n, 3, generator=generator) * NOISE + 40
    return Features(x, y[:, :targets], ("age", "height", "width")[:targets])


def values(scores):
    return {score.metric: score.value for score in scores}


@pytest.mark.parametrize("n", [120, 1200])  # cross-validation, and a single split
def test_the_choice_and_the_scores_are_those_of_scikit_learn(n):
    train, test = features(n, 1), features(150, 2)
    part = (class_ranks(torch.zeros(n, dtype=torch.int64), key("regression probe", 0)) % 5).numpy()
    x, y = train.x.double().numpy(), train.y.double().numpy()
    found = values(RegressionProbe()(train, HeldOut(test)))
    for number, name in enumerate(train.class_names):

        def model(strength, count):
            return make_pipeline(StandardScaler(), Ridge(alpha=strength * count))

        errors = []
        for strength in STRENGTHS:
            if n == 1200:
                rest = part != 0
                guess = model(strength, rest.sum()).fit(x[rest], y[rest, number]).predict(x[~rest])
                errors.append(np.square(guess - y[~rest, number]).sum())
            else:
                guess = cross_val_predict(model(strength, n * 0.8), x, y[:, number], cv=PredefinedSplit(part))
                errors.append(np.square(guess - y[:, number]).sum())
        best = model(STRENGTHS[int(np.argmin(errors))], n).fit(x, y[:, number])
        expected = best.score(test.x.double().numpy(), test.y[:, number].double().numpy())
        assert found[f"r2 ({name})"] == pytest.approx(expected, abs=1e-9)
    assert found["r2"] == pytest.approx(np.mean([found[f"r2 ({name})"] for name in train.class_names]))


def test_test_never_touches_the_choice_and_is_read_last():
    train, test = features(300, 1, targets=1), features(60, 2, targets=1)

    class Watched(HeldOut):
        def read(self):
            events.append("read")
            return super().read()

    events = []
    probe = RegressionProbe()
    probe.progress = type("Told", (), {"detail": lambda self, text: events.append(text)})()
    honest = probe(train, Watched(test))
    assert events.count("read") == 1
    assert events[events.index("read") :] == ["read", "intervals"]
    other = RegressionProbe()(train, HeldOut(Features(test.x.flip(0) * 3, -test.y, test.class_names)))
    chosen = [score.detail.partition(")")[0] for score in (honest[0], other[0])]
    assert chosen[0] == chosen[1]
    assert chosen[0].startswith("strength ")
    assert honest[0].value != other[0].value
    assert honest == RegressionProbe()(train, HeldOut(test))


def test_one_column_may_be_a_vector():
    train, test = features(200, 1, targets=1), features(60, 2, targets=1)
    flat = [Features(part.x, part.y[:, 0]) for part in (train, test)]
    assert values(RegressionProbe()(flat[0], HeldOut(flat[1]))) == values(RegressionProbe()(train, HeldOut(test)))


def test_a_constant_target_is_left_out():
    train, test = features(200, 1), features(60, 2)
    for part in (train, test):
        part.y[:, 1] = 3
    scores = RegressionProbe()(train, HeldOut(test))
    assert {score.metric.partition(" (")[2] for score in scores} == {"", "age)", "width)"}
    assert "the same for all train images, so left out: height" in scores[0].detail


def test_few_images_and_collapsed_features():
    tiny = features(2, 1, targets=1)
    assert np.isfinite(RegressionProbe()(tiny, HeldOut(features(10, 2, targets=1)))[0].value)
    collapsed = [Features(torch.ones(n, 4), features(n, n, 1).y, ("age",)) for n in (40, 20)]
    r2, *_, spearman = RegressionProbe()(collapsed[0], HeldOut(collapsed[1]))
    assert r2.value <= 0
    assert spearman.value == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": Features(torch.ones(4, 2), torch.arange(4))}, "predicts numbers, and these are classes"),
        ({"train": Features(torch.ones(4, 2), torch.ones(4))}, "all train images have the same numbers"),
        ({"train": Features(torch.ones(4, 2), torch.tensor([1.0, 2, 3, torch.nan]))}, "a target is NaN"),
        ({"train": Features(torch.full((4, 2), torch.nan), torch.rand(4))}, "the backbone has diverged"),
        ({"test": features(4, 1)}, "those of test age, height, width"),
        ({"test": Features(torch.ones(4, 2), torch.ones(4))}, "all 4 test images have the same 0"),
    ],
)
def test_what_cannot_be_predicted_is_refused(change, words):
    given = {"train": Features(torch.rand(4, 2), torch.rand(4)), "test": Features(torch.rand(4, 2), torch.rand(4))}
    given |= change
    with pytest.raises(ValueError, match=words):
        RegressionProbe()(given["train"], HeldOut(given["test"]))


@pytest.mark.parametrize("arguments", [{"strengths": ()}, {"strengths": (0.0,)}, {"holdout": 0.6}, {"layers": 0}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"strengths|holdout|layers"):
        RegressionProbe(**arguments)


def test_the_protocol_is_described():
    assert RegressionProbe(strengths=(1.0, 0.1), holdout=0.25).describe() == (
        "ridge regression on frozen, standardized features, for each target the strength of 2 with the largest R² on 25% of "
        "train held out (4-fold cross-validation if these are below 200 images), then fitted to all of train"
    )


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, images):
        return images.mean((2, 3))


def parquet(path, n, seed):
    """Images of one color; `red` is a linear function of it, `noise` is not; two images lack a number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (n, 3))
    encoded = []
    for color in colors:
        image = Image.new("RGB", (8, 8), tuple(color.tolist()))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path.parent / "image.png")
        encoded.append((path.parent / "image.png").read_bytes())
    red = (colors[:, 0] / 10 - 3).tolist()
    red[3] = None
    noise = rng.normal(size=n)
    noise[5] = np.nan
    table = {"image": encoded, "label": (np.arange(n) % 2).tolist(), "red": red, "noise": noise.tolist()}
    pq.write_table(pa.table(table), path)


def test_target_columns_of_a_table_from_end_to_end(tmp_path):
    for split, n in (("train", 90), ("test", 60)):
        parquet(tmp_path / f"{split}.parquet", n, n)
    sources = [
        open_source(f"parquet:{tmp_path}", split, target_columns=("red", "noise")) for split in ("train", "test")
    ]
    store = FeatureStore(tmp_path / "features")
    settings = {"dataset": "tables", "preprocessing": Preprocessing(size=8), "baseline": {}, "store": store}
    settings |= {"evaluators": {"regression": RegressionProbe()}, "data_keys": {"train": "a", "test": "b"}}
    result = evaluate_backbones({"means": Means()}, *sources, **settings)
    rows = {row["metric"]: row for row in result.rows}
    assert rows["r2 (red)"]["value"] > 0.999
    assert rows["r2 (noise)"]["value"] < 0.3
    assert rows["r2"]["n"] == 58
    assert json.loads(json.dumps(result.as_json()))["rows"][0]["metric"] == "r2"
    assert any("these have no number in red (1), noise (1)" in note for note in result.notes["tables"])
    again = evaluate_backbones({"means": Means()}, *sources, **settings)
    assert store.found == 2
    assert again.rows == result.rows


def test_parameters_of_a_generator_from_end_to_end():
    sources = [
        open_source("finite", split, of={"source": "spectrum", "size": 16}, items=n)
        for split, n in (("train", 120), ("test", 60))
    ]

    class Slopes(nn.Module):
        """The mean step between neighbors along each axis, which falls with the exponent."""

        def forward(self, images):
            steps = [images.diff(dim=dim).abs().mean((1, 2, 3)) for dim in (2, 3)]
            return torch.stack([*steps, images.std((1, 2, 3))], 1).log()

    evaluators = {"regression": RegressionProbe()}
    result = evaluate_backbones({"slopes": Slopes()}, *sources, dataset="noise", evaluators=evaluators, baseline={})
    rows = {row["metric"]: row["value"] for row in result.rows}
    assert rows["r2"] > 0.5
    assert {"r2 (horizontal_exponent)", "r2 (vertical_exponent)"} <= set(rows)


class Numbers(Source):
    """Images of changing sizes with two parameters, one of which is NaN for every third image."""

    num_items = 12
    parameter_names = ("a", "b")

    def read(self, items):
        pixels = [np.zeros((4 + item % 2, 4, 3), np.uint8) for item in items]
        parameters = np.stack([items, np.where(np.asarray(items) % 3 == 2, np.nan, 1)], 1).astype(np.float32)
        return Images(pixels, parameters=parameters if self.reads_parameters else None)


@pytest.mark.parametrize("size", [None, 4])
def test_chunks_have_targets_of_images_that_have_all_of_them(size):
    chunks = list(labeled_chunks(Numbers(), "numbers", 5, size=size, targets=True))
    assert np.concatenate([chunk.items for chunk in chunks]).tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert np.concatenate([chunk.labels for chunk in chunks])[:, 0].tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert chunks[0].labels.dtype == np.float32


def test_streams_and_images_have_targets_too():
    seen = {}

    class Looks(Evaluator):
        targets, needs_labels = True, False

        def __init__(self, needs):
            self.needs = needs

        def __call__(self, train, test):
            held = test.read()
            seen[self.needs] = [
                torch.cat([torch.as_tensor(chunk.y) for chunk in part]) if self.needs == "maps" else part.y
                for part in (train, held)
            ]
            assert train.class_names == ("a", "b")
            return [Score("one", 1.0, None, None, len(seen[self.needs][1]))]

    class Maps(nn.Module):
        def maps(self, images):
            return [images]

    evaluators = {needs: Looks(needs) for needs in ("maps", "images")}
    settings = {"preprocessing": Preprocessing(size=4), "baseline": {}, "evaluators": evaluators}
    result = evaluate_backbones({"maps": Maps()}, Numbers(), Numbers(), dataset="numbers", **settings)
    assert [row["n"] for row in result.rows] == [8, 8]
    for train, test in seen.values():
        assert np.asarray(train).tolist() == np.asarray(test).tolist() == [[i, 1] for i in (0, 1, 3, 4, 6, 7, 9, 10)]


def test_sources_without_numbers_are_refused():
    source = Numbers()
    source.parameter_names = ()
    with pytest.raises(ValueError, match=r"numbers: these images come without numbers to predict; .*target_columns"):
        next(labeled_chunks(source, "numbers", targets=True))
    source.parameter_names = ("a",)
    with pytest.raises(ValueError, match=r"images have float32\[n, 1\] numbers \(a\), got \[12, 2\]"):
        next(labeled_chunks(source, "numbers", targets=True))


@pytest.mark.parametrize("labels", [[0.5, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_fractions_are_no_labels(labels):
    with pytest.raises(
        ValueError, match=r"labels are whole numbers, one for each class, got (0.5|nan|inf); the evaluator"
    ):
        label_array(labels)
    assert label_array([3.0, -1.0]).tolist() == [3, -1]
