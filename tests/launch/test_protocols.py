"""Datasets and protocols of an evaluation: names, arguments, labels and errors."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import TINY

from wildfern.launch import evaluate, pretrain
from wildfern.launch.cli import main
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.evaluate_datasets import scores
from wildfern.launch.evaluation_data import evaluation_sources
from wildfern.launch.protocols import check_request, parse_datasets, parse_protocols
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Component, DataEntry, EvaluationEntry, RecipeErrors
from wildfern.registry import EVALUATORS, SOURCES, Origin
from wildfern.ssl.data import DataError, Images, Source, open_source
from wildfern.ssl.evaluation import KNN, Evaluator, FewShot, LinearProbe, Score, proportion


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrain("quickstart", [*TINY, "training.steps=1"], run=tmp_path_factory.mktemp("protocols") / "run")


def test_protocols_are_named_by_what_differs_from_their_defaults():
    protocols = [
        "linear",
        {"name": "knn"},
        {"name": "knn", "k": 5},
        {"name": "knn", "k": 5, "temperature": 0.07},
        "knn",
    ]
    _, evaluators = check_request(["digits"], protocols, few_shot=[2], seeds=4)
    assert list(evaluators) == [
        "linear",
        "knn",
        "knn (k=5)",
        "few_shot (classifier=linear, shots=2, seeds=4)",
        "few_shot (classifier=knn, shots=2, seeds=4)",
    ]
    assert isinstance(evaluators["linear"], LinearProbe)
    assert evaluators["knn (k=5)"].k == (5,)
    few = evaluators["few_shot (classifier=knn, shots=2, seeds=4)"]
    assert isinstance(few, FewShot)
    assert (few.classifier, few.shots, few.seeds) == ("knn", 2, 4)


def test_invalid_arguments_of_protocols_are_errors_of_the_recipe():
    with pytest.raises(RecipeErrors, match=r"evaluation\.protocols\.1: k and temperature are positive"):
        read_recipe("quickstart", ["evaluation.protocols=[linear, {name: knn, k: 0}]"])


def test_an_error_on_one_data_set_keeps_the_scores_of_those_before(run, tmp_path):
    for number in range(40):
        place = tmp_path / "images" / "only"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(place / f"{number}.png")
    (run / "evaluation.json").unlink(missing_ok=True)
    with pytest.raises(RunError, match="one class"):
        evaluate(run, ["digits", f"folder:{tmp_path / 'images'}"], ["knn"])
    assert {row["dataset"] for row in json.loads((run / "evaluation.json").read_text())["rows"]} == {"digits"}


@pytest.mark.parametrize(
    ("key", "words"),
    [("name", "set model.backbone instead"), ("num_classes", "no classifier"), ("stem", "set model.stem")],
)
def test_arguments_that_are_not_of_the_network_are_named(key, words):
    with pytest.raises(RecipeErrors, match=rf"model\.arguments\.{key}: .*{words}"):
        read_recipe("quickstart", [f"model.arguments={{{key}: x}}"])


def test_a_single_name_or_mapping_is_taken_from_python(run):
    assert {row["protocol"] for row in evaluate(run, "digits", {"name": "knn", "k": 3}).main_rows()} == {"knn (k=3)"}


def test_entries_of_recipes_are_taken():
    on = [DataEntry(source="digits"), EvaluationEntry(source="folder:.", arguments={"min_side": 8})]
    protocols = [Component(name="retrieval", arguments={"k": [1, 3], "gallery": "test"}), Component(name="knn")]
    datasets, evaluators = check_request(on, protocols)
    assert [dataset.label for dataset in datasets] == ["digits", "folder:. (min_side=8)"]
    assert list(evaluators) == ["retrieval (k=[1, 3], gallery=test)", "knn"]


def test_forms_on_the_command_line():
    assert parse_protocols(["linear, knn", "{name: knn, k: 5}", "retrieval k=[1,3] gallery=test"]) == [
        "linear",
        "knn",
        {"name": "knn", "k": 5},
        {"name": "retrieval", "k": [1, 3], "gallery": "test"},
    ]
    assert parse_protocols([""]) == []
    assert parse_datasets(
        [
            "digits",
            "parquet:X image_column=img",
            "{source: 'folder:a b', test_fraction: 5e-1}",
            "folder:my images, 2024",
        ]
    ) == [
        "digits",
        {"source": "parquet:X", "image_column": "img"},
        {"source": "folder:a b", "test_fraction": 0.5},
        "folder:my images, 2024",
    ]
    with pytest.raises(RecipeErrors, match="--on"):
        parse_datasets(["{source: [digits}"])


def test_errors_are_reported_together_with_the_nearest_name():
    on = ["digit", "ifs", {"source": "folder:.", "test_fractoin": 0.1}, {"sauce": "digits"}, "parquet:nowhere"]
    protocols = ["linaer", {"name": "knn", "k": "5", "temprature": 1}, {"name": "knn", "k": 0}, 3]
    with pytest.raises(RecipeErrors) as caught:
        check_request(on, protocols, few_shot=[0])
    lines = str(caught.value).splitlines()
    for words in (
        ("on.0", "digits"),
        ("on.1", "endless"),
        ("on.2.test_fractoin", "test_fraction?"),
        ("on.3", "source"),
        ("on.4", "there is no nowhere"),
        ("protocols.0", "did you mean linear?"),
        ("protocols.1 (knn).k", "an integer"),
        ("protocols.1 (knn).temprature", "temperature?"),
        ("protocols.2 (knn)", "k=0"),
        ("protocols.3", "name"),
        ("few_shot.0", "at least 1"),
    ):
        assert any(all(word in line for word in words) for line in lines), (words, lines)


def test_wrong_names_are_reported_before_anything_is_read(run, monkeypatch):
    monkeypatch.setattr(RunFolder, "backbone", lambda *arguments, **options: pytest.fail("the backbone was built"))
    with pytest.raises(RecipeErrors, match="linear"):
        evaluate(run, on=["digits"], protocols=["linaer"])


def test_arguments_of_a_data_set_reach_its_source(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((20, 20, 3), 20 * i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    source = f"folder:{tmp_path}/images"
    plain, half = evaluation_sources([source, {"source": source, "test_fraction": 0.5}]).values()
    (train, test), (less, more) = ([part.num_items for part in parts] for parts in (plain, half))
    assert train + test == less + more == 20
    assert more > test > 0


@pytest.mark.parametrize(
    ("fraction", "words"),
    [
        (
            0.001,
            "test_fraction 0.001 leaves no image for the test split: all 4 images .* set a larger test_fraction, for example 0.2",
        ),
        (
            0.999,
            "test_fraction 0.999 leaves no image for the train split: .* set a smaller test_fraction, for example 0.2",
        ),
    ],
)
def test_a_fraction_that_empties_a_split_is_named(tmp_path, fraction, words):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (20, 20), (90 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(DataError, match=words):
        evaluation_sources([{"source": f"folder:{tmp_path}", "test_fraction": fraction}])


class Tagged(Source):
    """Digits with two tags each: at least five, and even."""

    class_names = ["large", "even"]  # noqa: RUF012

    def __init__(self, split="train"):
        super().__init__()
        self.digits, self.num_items = open_source("digits", split), 120
        self.split_words = f"the first 120 of {split}"

    def read(self, items):
        images = self.digits.read(items)
        return Images(images.pixels, np.stack([images.labels >= 5, images.labels % 2 == 0], axis=1))


def test_images_with_several_labels_are_evaluated_and_reported(run, registered_source):
    registered_source("tagged", Tagged)
    result = evaluate(run, ["tagged"], ["linear", "knn"])
    assert {row["metric"] for row in result.rows} == {"mean_average_precision", "micro_average_precision"}
    assert scores(result)["tagged/knn"] > 0.5
    page = (run / "report.html").read_text()
    assert "train: 120 images (the first 120 of train) · test: 120 images (the first 120 of test)" in page
    assert "micro average precision" in page
    with pytest.raises(
        RunError, match=r"few_shot \(classifier=linear, shots=5\).* need one label each; linear, knn, finetune"
    ):
        evaluate(run, ["tagged"], ["linear"], few_shot=[5])


def test_rows_and_metrics_of_a_run(run):
    result = evaluate(
        run, on=["digits"], protocols=["knn", {"name": "knn", "k": 5}, "retrieval"], few_shot=[2], seeds=2
    )
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    metrics = {(row["protocol"], row["metric"]) for row in rows}
    assert {("knn", "accuracy"), ("knn", "top5_accuracy"), ("knn (k=5)", "balanced_accuracy")} <= metrics
    assert {("retrieval", "mean_average_precision"), ("retrieval", "recall@10")} <= metrics
    knn = next(row for row in rows if row["protocol"] == "knn (k=5)" and row["backbone"] == "pretrained")
    assert knn["low"] < knn["value"] < knn["high"]
    assert list(scores(result)) == [
        f"digits/{protocol}"
        for protocol in (
            "knn",
            "knn (k=5)",
            "retrieval",
            "few_shot (classifier=linear, shots=2, seeds=2)",
            "few_shot (classifier=knn, shots=2, seeds=2)",
        )
    ]
    assert scores(result)["digits/knn (k=5)"] == knn["value"]


@pytest.fixture
def registered_source():
    """Registers sources for one test."""
    origin = Origin("this test")
    yield lambda name, component: SOURCES.register(name, component, origin)
    SOURCES.forget(origin)


@pytest.fixture
def registered():
    """Registers evaluators for one test."""
    origin = Origin("this test")
    yield lambda name, component: EVALUATORS.register(name, component, origin)
    EVALUATORS.forget(origin)


class MeanMap(Evaluator):
    """Nearest class mean of the last map."""

    needs = "maps"

    def __init__(self, *, level: int = -1) -> None:
        self.level = level

    def __call__(self, train, test):
        x, y = zip(*((chunk.x[self.level].mean((2, 3)), chunk.y) for chunk in train), strict=True)
        x, y = torch.cat(x), torch.cat(y)
        means = torch.stack([x[y == label].mean(0) for label in range(len(train.class_names))])
        right = n = 0
        for chunk in test.read():
            found = torch.cdist(chunk.x[self.level].mean((2, 3)), means).argmin(1)
            right, n = right + int((found == chunk.y).sum()), n + len(chunk.y)
        return [proportion("accuracy", right, n)]


class Brightness(Evaluator):
    """Nearest class mean of the brightness, through the backbone's preprocessing only."""

    needs = "images"

    def __call__(self, train, test):
        held = test.read()
        assert train.pixels.shape[1:] == (32, 32, 3)
        assert train.pixels.dtype == np.uint8
        light = [part.pixels.mean((1, 2, 3)) for part in (train, held)]
        means = np.array([light[0][train.y == label].mean() for label in range(len(train.class_names))])
        found = np.abs(light[1][:, None] - means).argmin(1)
        return [
            proportion("accuracy", int((found == held.y).sum()), len(held)),
            Score("light", 1.5, None, None, 2, share=False),
        ]


def test_evaluators_from_outside_run(run, registered):
    registered("mean_map", MeanMap)
    registered("brightness", Brightness)
    result = evaluate(run, on=["digits"], protocols=["mean_map", {"name": "mean_map", "level": 0}, "brightness"])
    assert {row["protocol"] for row in result.rows} == {"mean_map", "mean_map (level=0)", "brightness"}
    assert {row["n"] for row in result.main_rows()} == {evaluation_sources(["digits"])["digits"][1].num_items}
    bright = [row["value"] for row in result.main_rows() if row["protocol"] == "brightness"]
    assert bright[0] == bright[1] > 0.1
    assert result.protocols["mean_map"] == "Nearest class mean of the last map"
    with pytest.raises(RecipeErrors, match="did you mean level"):
        evaluate(run, on=["digits"], protocols=[{"name": "mean_map", "levle": 0}])


def test_an_invalid_evaluator_is_refused(registered):
    registered("wrong", lambda *, k=3: k)
    registered("shapeless", type("Shapeless", (), {"__init__": lambda self: None}))
    with pytest.raises(RecipeErrors) as caught:
        check_request([], ["wrong", "shapeless"])
    untyped, other = str(caught.value).splitlines()
    assert "protocols.0" in untyped
    assert "type annotation" in untyped
    assert "protocols.1 (shapeless): shapeless is not a subclass of wildfern.ssl.evaluation.Evaluator" in other


def test_the_command_prints_a_table_and_writes_json(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "evaluation.json"
    words = ["evaluate", str(run), "--on", "digits", "--protocol", "knn", "--protocol", "{name: knn, k: 3}"]
    monkeypatch.setattr(sys, "argv", ["wildfern", *words, "--json", str(out)])
    monkeypatch.setenv("COLUMNS", "160")
    main()
    text = capsys.readouterr().out
    stored = json.loads(out.read_text())
    assert set(stored["protocols"]) == {"knn", "knn (k=3)"}
    for row in stored["rows"]:
        if row["metric"] == "accuracy":
            assert f"{100 * row['value']:.1f} %" in text
    assert "gain" in text
    assert isinstance(check_request([], ["knn"])[1]["knn"], KNN)
