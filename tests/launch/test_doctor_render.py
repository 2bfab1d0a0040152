"""The commands doctor, render, recipes, version and help."""

import importlib.metadata
import io
import json

from PIL import Image
from rich.console import Console

from wildfern.launch import doctor


def test_doctor_says_that_this_machine_is_ready(wildfern):
    process = wildfern("doctor", process=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ready to train" in process.stdout
    for part in ("torch", "generators", "digits", "deepspeed"):
        assert part in process.stdout


def test_doctor_says_how_to_get_an_extra(monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(doctor, "CHECKS", {"onnx": doctor.CHECKS["onnx"]})
    printed = io.StringIO()
    assert doctor.examine(Console(file=printed, width=200)) == 0
    assert "pip install 'wildfern[onnx]'" in printed.getvalue()


def test_render_draws_a_labeled_gallery(wildfern, tmp_path):
    process = wildfern("render", "ifs", "size=64", "points=2000", "--grid", "3x2", "--out", "g.png")
    assert process.returncode == 0, process.stderr
    with Image.open(tmp_path / "g.png") as image:
        assert image.size == (3 * 68 + 4, 2 * 82 + 4)
        assert len(image.getcolors(2**20)) > 500


def test_galleries_show_pairs_and_labels_of_several_classes(wildfern, tmp_path):
    pairs = wildfern("render", "ifs_pair", "size=64", "points=2000", "--grid", "2x2", "--out", "p.png")
    assert "image | paired image" in pairs.stdout, pairs.stderr
    with Image.open(tmp_path / "p.png") as image:
        assert image.size == (2 * 132 + 4, 2 * 82 + 4)
    scenes = wildfern(
        "render", "ifs_multi", "size=64", "points=2000", "fractals=[1, 2]", "--grid", "2x2", "--out", "m.png"
    )
    assert scenes.returncode == 0, scenes.stderr


def test_recipes_are_listed_printed_and_described_for_editors(wildfern):
    assert "quickstart" in wildfern("recipes").stdout
    assert wildfern("recipes", "quickstart").stdout.startswith("#")
    schema = json.loads(wildfern("recipes", "--schema").stdout)
    assert "training" in schema["properties"]


def test_version_and_help(wildfern):
    assert wildfern("--version", process=True).stdout.startswith("wildfern ")
    assert "pretrain" in wildfern("--help", process=True).stdout
