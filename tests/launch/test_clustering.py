"""`wildfern cluster`, and runs with a guide and imbalanced classes: recorded, and resumed on the same only."""

import gzip

import numpy as np
import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.clustering import write_clusters
from wildfern.launch.errors import RunError
from wildfern.launch.stats import describe_source
from wildfern.recipes import RecipeErrors
from wildfern.ssl.data import DataError, open_source
from wildfern.ssl.data.clusters import read_clusters
from wildfern.ssl.data.guided_batches import GuidedBatches
from wildfern.ssl.data.imbalance import imbalanced

CHANGES = [word for word in TINY if not word.startswith("data.")]
CHANGES += ["data={source: digits, imbalance: {kind: linear}}", "training.precision=fp32"]


def test_a_guided_run_is_recorded_and_resumes_on_the_same_images_only(tmp_path):
    file = tmp_path / "clusters.safetensors"
    found = write_clusters(on="digits", backbone="test_vit", size=32, k=30, out=file)
    assert (found.images, found.unreadable) == (1258, 0)
    digits = open_source("digits")
    clusters = read_clusters(str(file), digits, "digits")
    assert np.bincount(clusters).max() == found.largest
    changes = [*CHANGES, f"data.guide={file}"]
    run = pretrain("quickstart", [*changes, "training.steps=1"], run=tmp_path / "run")
    part = imbalanced(digits, "digits", "linear")
    listed = gzip.decompress((run / "data_items.txt.gz").read_bytes()).decode().splitlines()
    assert [int(line.split("\t")[1]) for line in listed] == part.items.tolist()
    pretrain(run / "recipe.yaml", ["training.steps=2"], run=run, resume=True)
    with pytest.raises(RunError, match="data differ"):
        pretrain(run / "recipe.yaml", ["training.steps=3", "data.imbalance.seed=1"], run=run, resume=True)
    write_clusters(run, "digits", k=30, out=file)
    with pytest.raises(RunError, match="guide of other clusters"):
        pretrain(run / "recipe.yaml", ["training.steps=3"], run=run, resume=True)
    guided = GuidedBatches(clusters[part.items], 8, seed=0).locate(np.arange(8))[1]
    assert len(set(clusters[part.items][guided])) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["data={source: digits, imbalance: {kind: step}}"],
            "data.imbalance: kind step needs a ratio",
        ),
        (
            ["data={source: digits, imbalance: {kind: exp, ratios: 3}}"],
            "unknown key; did you mean data.imbalance.ratio",
        ),
        (["data={source: digits, guide: nowhere}", "method.temperature=-1"], r"data.guide: there is no file nowhere.*"),
        (["data=[{source: digits, guide: x}, {source: ifs}]"], "data.0.guide: fills whole batches from one source"),
    ],
)
def test_errors_of_the_recipe(changes, message):
    with pytest.raises(RecipeErrors, match=message):
        pretrain("quickstart", changes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "run folder, or a network"),
        ({"backbone": "test_vit"}, "name the images"),
        ({"backbone": "test_vit", "on": "ifs"}, "endless"),
        ({"backbone": "test_vit", "on": "digits", "k": 2000}, "too few for 2,000 clusters"),
    ],
)
def test_what_cannot_be_clustered_is_refused(given, message, tmp_path):
    with pytest.raises((RunError, RecipeErrors), match=message):
        write_clusters(**{"k": 4, "size": 32 if given else None, "out": tmp_path / "x"} | given)


def test_stats_counts_an_imbalanced_source():
    text = describe_source("digits", {"imbalance": {"kind": "exp", "ratio": 20}})
    assert "imbalance exp" in text
    assert "in all images: 0 6, 1 8, 2 12" in text


def test_the_images_of_a_run_are_clustered_as_it_was_trained_on_them(tmp_path):
    """Images that are rendered depend on the seed of the recipe."""
    changes = [
        *(word for word in TINY if not word.startswith("data.")),
        "training.steps=1",
        "evaluation.on=[]",
        "seed=3",
    ]
    changes.append("data={source: finite, of: {source: spectrum, size: 16}, items: 40}")
    run = pretrain("quickstart", changes, run=tmp_path / "run")
    write_clusters(run, k=12, out=tmp_path / "clusters")
    guided = [*changes, f"data.guide={tmp_path / 'clusters'}"]
    pretrain("quickstart", guided, run=tmp_path / "guided")
    with pytest.raises(DataError, match="on the run itself if the images depend on the seed"):
        pretrain("quickstart", [*guided, "seed=4"], run=tmp_path / "other")


def test_only_a_file_of_clusters_is_replaced(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 0\n")
    with pytest.raises(RunError, match="exists and is no file of clusters"):
        write_clusters(on="digits", backbone="test_vit", size=32, k=4, out=tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "seed: 0\n"
