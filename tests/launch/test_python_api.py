"""`pretrain()` and `evaluate()` on typical data."""

import json

import numpy as np
import pytest
from PIL import Image
from small_runs import TINY

from wildfern.launch import evaluate, pretrain
from wildfern.launch.errors import RunError
from wildfern.ssl.tracking import read_records


@pytest.fixture
def photographs(tmp_path):
    """A realistic image folder: two classes, with some broken files."""
    for name, hue in (("cats", 40), ("dogs", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 50, (40 + i, 60, 3), np.uint8) + np.uint8(hue)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.jpg")
    (tmp_path / "images" / "empty.jpg").touch()
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    whole = (tmp_path / "images" / "cats" / "0.jpg").read_bytes()
    (tmp_path / "images" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "images"


def test_a_folder_mixed_with_fractals(photographs, tmp_path):
    mix = f"data=[{{source: 'folder:{photographs}', weight: 1}}, {{source: ifs, weight: 1, size: 32, points: 200}}]"
    changes = [c for c in TINY if not c.startswith("data.")]
    run = pretrain("quickstart", [mix, *changes, "training.steps=8"], run=tmp_path / "run")
    assert [r["step"] for r in read_records(run / "metrics.jsonl")] == list(range(8))
    skipped = {r["file"].split("/")[-1]: r["reason"] for r in map(json.loads, (run / "skipped.jsonl").open())}
    assert "empty.jpg" in skipped
    rows = evaluate(run, on=[f"folder:{photographs}"], protocols=["knn"]).main_rows()
    assert [r["backbone"] for r in rows] == ["random", "pretrained"]


def test_parquet_of_real_images(shared, tmp_path):
    changes = [c for c in TINY if not c.startswith("data.")]
    source = f"data={{source: 'parquet:{shared}/data/cifar10'}}"
    run = pretrain("quickstart", [source, *changes, "training.steps=3"], run=tmp_path / "run")
    assert len(read_records(run / "metrics.jsonl")) == 3


def test_the_uncurated_folder_mixed_with_fractals(shared, tmp_path):
    changes = [
        "training.steps=4",
        "training.batch_size=16",
        "views.size=32",
        "training.log_every=1",
        "evaluation.on=[]",
    ]
    source = f"data.0.source=folder:{shared}/data/uncurated"
    run = pretrain("mix_folder_and_ifs", [source, *changes], run=tmp_path / "run")
    assert len(read_records(run / "metrics.jsonl")) == 4
    skipped = {json.loads(line)["file"].split("/")[-1] for line in (run / "skipped.jsonl").open()}
    assert {"bomb.png", "empty.jpg", "text.jpg"} <= skipped


def test_two_runs_of_one_recipe_write_identical_bytes(tmp_path):
    runs = [pretrain("quickstart", [*TINY, "training.steps=4"], run=tmp_path / name) for name in "ab"]
    assert (runs[0] / "metrics.jsonl").read_bytes() == (runs[1] / "metrics.jsonl").read_bytes()
    other = pretrain("quickstart", [*TINY, "training.steps=4", "seed=1"], run=tmp_path / "c")
    assert (runs[0] / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes()


def test_a_run_can_be_repeated_from_its_folder(tmp_path):
    first = pretrain("quickstart", [*TINY, "training.steps=3"], run=tmp_path / "first")
    again = pretrain(first / "recipe.yaml", run=tmp_path / "again")
    assert (first / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()


def test_evaluation_in_the_middle_of_training_is_logged(tmp_path):
    changes = ["training.steps=4", "evaluation.on=[digits]", "evaluation.protocols=[knn]", "evaluation.every=2"]
    run = pretrain("quickstart", [*TINY, *changes, "evaluation.few_shot=[]"], run=tmp_path / "run")
    records = read_records(run / "metrics.jsonl")
    assert [r["step"] for r in records if "digits/knn" in r] == [1, 3]
    assert (run / "evaluation.json").is_file()


def test_wandb_offline_also_writes_its_files(tmp_path):
    run = pretrain("quickstart", [*TINY, "training.steps=2", "tracking.wandb=offline"], run=tmp_path / "run")
    assert (run / "wandb_id").is_file()
    assert list((run / "wandb").glob("offline-run-*"))


def test_evaluate_needs_a_run_and_a_data_set(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(tmp_path, on=["digits"])
    with pytest.raises(RunError, match="nothing to evaluate on"):
        evaluate(tmp_path)
