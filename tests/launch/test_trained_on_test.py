"""Test images that were also read in training are counted."""

import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import TINY

from wildfern.launch import evaluate, pretrain
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.trained_on_test import trained_on_test
from wildfern.ssl.data import open_source


def write_images(folder, numbers, seed=0):
    for number in numbers:
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (32, 32, 3), np.uint8)
        file = folder / ("even" if number % 2 == 0 else "odd") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images", range(40))
    tiny = [change for change in TINY if not change.startswith("data.")]
    changes = [*tiny, f"data={{source: 'folder:{folder / 'images'}'}}", "training.steps=1", "evaluation.on=[]"]
    return pretrain("quickstart", changes, run=folder / "run"), folder / "images"


def said(run, images, **arguments):
    folder = RunFolder(run)
    return trained_on_test(
        folder, folder.recipe(), open_source(f"folder:{images}", "test", test_fraction=0.3, **arguments)
    )


def test_a_held_out_part_of_the_training_folder_was_trained_on(trained):
    run, images = trained
    n = open_source(f"folder:{images}", "test", test_fraction=0.3).num_items
    assert said(run, images).startswith(f"run was also trained on {n} of {n} test images: ")
    result = evaluate(run, on=[{"source": f"folder:{images}", "test_fraction": 0.3}], protocols=["knn"])
    [notes] = result.notes.values()
    assert f"run was also trained on {n} of {n} test images" in notes[0]


def test_copies_count_and_other_images_of_the_same_name_do_not(trained, tmp_path):
    run, images = trained
    write_images(tmp_path / "other", range(40), seed=1)
    test = open_source(f"folder:{tmp_path / 'other'}", "test", test_fraction=0.3)
    first, second, *_ = (file.path for file in test.files())
    assert said(run, tmp_path / "other") is None
    shutil.copy(images / "even" / "0.png", first)
    shutil.copy(images / "odd" / "1.png", second)
    assert f"2 of {test.num_items} test images" in said(run, tmp_path / "other")


def test_files_that_are_not_here_any_more_count_by_name_and_size(trained, tmp_path):
    run, images = trained
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(images, tmp_path / "images")
    images.rename(images.with_name("moved"))
    try:
        n = open_source(f"folder:{tmp_path / 'images'}", "test", test_fraction=0.3).num_items
        assert f"{n} of {n}" in said(tmp_path / "run", tmp_path / "images")
    finally:
        images.with_name("moved").rename(images)


def test_a_run_on_rendered_images_and_a_damaged_list_say_nothing(trained, tmp_path):
    run, images = trained
    rendered = pretrain("quickstart", [*TINY, "training.steps=1", "evaluation.on=[]"], run=tmp_path / "rendered")
    assert said(rendered, images) is None
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "data_files.txt.gz").write_bytes(b"no gzip")
    assert said(tmp_path / "damaged", images) is None
