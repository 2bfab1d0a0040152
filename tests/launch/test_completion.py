"""Shell completion: words of recipes, runs, sources and generators, without torch."""

import os
import subprocess
import sys

import pytest

from wildfern.launch.completion import generator_words, recipe_or_run_words, recipe_words, run_words, source_words


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "recipe.yaml").write_text("seed: 0")
    (tmp_path / "simple.yaml").write_text("seed: 0")
    (tmp_path / "simple.txt").write_text("")
    (tmp_path / ".hidden").mkdir()


def words(found):
    return [word for word, _ in found]


def test_recipes_are_bundled_names_and_files():
    assert words(recipe_words("sim")) == [
        *("simclr_cifar10", "simclr_ifs_resnet18", "simclr_ifs_resnet50"),
        *("simmim_ifs_vit_small", "simsiam_cifar10", "simple.yaml"),
    ]
    assert words(recipe_words("runs/")) == ["runs/first/"]
    assert dict(recipe_words("quick"))["quickstart"].startswith("SimCLR on fractals")


def test_runs_are_folders():
    assert run_words("r") == [("runs/", "")]
    assert run_words("runs/f") == [("runs/first", "run")]
    assert words(run_words("")) == ["runs/"]
    assert words(run_words(".h")) == [".hidden/"]
    assert words(run_words("nowhere/x")) == []
    assert words(recipe_or_run_words("runs/f")) == ["runs/first/", "runs/first"]


def test_sources_and_generators():
    assert {"folder:", "food101"} <= set(words(source_words("f")))
    assert words(generator_words("ifs")) == ["ifs", "ifs_multi", "ifs_pair"]


def test_the_shell_gets_words_and_torch_is_not_imported():
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "from wildfern.launch.cli import invoke\n"
        "invoke()\n"
    )
    asked = {"_WILDFERN_COMPLETE": "complete_bash", "COMP_WORDS": "wildfern pretrain simclr_c", "COMP_CWORD": "2"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.split() == ["simclr_cifar10", "False"], run.stderr
