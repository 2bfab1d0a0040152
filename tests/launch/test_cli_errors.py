"""User errors: one clear message, exit code 2, no traceback."""

import subprocess
import sys

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.cli import main
from wildfern.launch.components import read_recipe
from wildfern.recipes import RecipeErrors
from wildfern.ssl.data import DataError, open_source


def said(process: subprocess.CompletedProcess) -> str:
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr


@pytest.mark.parametrize(
    ("path", "kind"),
    [("pics", "folder"), ("pics/a.parquet", "parquet"), ("b.parquet", "parquet"), ("c.tar", "webdataset")],
)
def test_the_kind_of_a_path_is_suggested(tmp_path, monkeypatch, path, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    (tmp_path / path).touch()
    with pytest.raises(RecipeErrors, match=f"unknown source '{path}'; did you mean {kind}:{path}?"):
        read_recipe("quickstart", [f"data={path}"])
    with pytest.raises(DataError, match=f"write the kind of a path before it: {kind}:{path}"):
        open_source(path)


def test_all_errors_of_a_recipe_are_reported_together(wildfern):
    changes = ["training.stepz=3", "method.temperature=-1", "model.backbone=resnet19", "model.stemm=cifar"]
    changes += ["data={source: folder:nowhere, min_sid: 3}", "evaluation.on=[folder:gone]", "optimizer.name=lars"]
    changes += ["engine={name: deepspeed, zero_stage: 1}", "evaluation.protocols=[]", "evaluation.few_shot=[]"]
    first, *lines = said(wildfern("pretrain", "quickstart", *changes, process=True)).splitlines()
    assert first == "starting: loading torch and its libraries …"
    lines = [line for line in lines if ".yaml" in line or "command line" in line]  # not those of a slow machine
    for words in (
        "training.stepz: unknown key; did you mean training.steps?",
        "method.temperature: must be greater than 0",
        "model.backbone: unknown backbone 'resnet19'; did you mean resnet18",
        "model.stemm: unknown key; did you mean model.stem?",
        "data.min_sid: unknown key; did you mean data.min_side?",
        "data.source: there is no nowhere",
        "evaluation.on.0.source: there is no gone",
        "engine.zero_stage: must be 0 for lars",
        "evaluation.protocols: name at least one of",
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert len(lines) == 9


@pytest.mark.parametrize("command", [["pretrain"], ["plan"], ["views"], ["bench", "pipeline", "--recipe"]])
def test_every_command_reports_the_errors_of_a_recipe_on_lines_of_their_own(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "r.yaml").write_text("extends: quickstart\ntraining: {steps: -1, batch_size: few}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wildfern", *command, "r.yaml"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "r.yaml: training.steps: must be greater than 0, got -1",
        'r.yaml: training.batch_size: must be an integer, got "few"',
    ]


def test_a_comment_that_cuts_a_path_short_is_named(wildfern, tmp_path):
    (tmp_path / "pics #1").mkdir()
    text = said(wildfern("pretrain", "quickstart", "data.source=folder:pics #1"))
    assert "starts a comment in YAML" in text
    assert """data.source='"folder:pics #1"'""" in text
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: quickstart\ndata:\n  source: folder:pics #1\n")
    text = said(wildfern("pretrain", "mine.yaml"))
    assert "there is no pics (from the working folder); there is 'pics #1': '#' after a space starts a comment" in text
    text = said(wildfern("pretrain", "quickstart", "data={source: folder:pics #1}"))
    assert "starts a comment in YAML" in text
    text = said(wildfern("pretrain", "quickstart", """data.source='folder:pics #1'"""))
    assert "no images under pics #1" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "quickstar"], ["quickstart"]),
        (["pretrain", "missing.yaml"], ["missing.yaml", "no such file"]),
        (["pretrain", "./run"], ["is a folder, not a recipe", "run/recipe.yaml"]),
        (["pretrain", "quickstart", "data.source=folder:nowhere"], ["nowhere"]),
        (["pretrain", "quickstart", "data.source=folder:empty"], ["no images under", "notes.txt"]),
        (["pretrain", "quickstart", "data.source=digit"], ["digits"]),
        (["pretrain", "quickstart", "evaluation.on=[digit]"], ["digits"]),
        (["pretrain", "quickstart", "method.name=dino", "views.count=3"], ["2 views"]),
        (["pretrain", "quickstart", "evaluation.on=[ifs]"], ["endless"]),
        (["pretrain", "quickstart", "evaluation.protocols=[]", "evaluation.few_shot=[]"], ["protocols"]),
        (["render", "ifs", "size=[1"], ["YAML"]),
        (["render", "ifs", "size=32", "--out", "empty/notes.txt/g.png"], ["cannot write empty/notes.txt/g.png"]),
        (["pretrain", "quickstart", "training.batch_size=10", "training.accumulation=4"], ["accumulation", "10"]),
        (["pretrain", "quickstart", "training.batch_size=1"], ["training.batch_size", "needs at least 2, got 1"]),
        (
            ["pretrain", "quickstart", "training.batch_size=12", "training.accumulation=12"],
            ["training.accumulation", "12 parts of 12 images have 1 each", "at most 6 parts"],
        ),
        (["plan", "quickstart", "training.batch_size=4", "training.accumulation=4"], ["at most 2 parts"]),
        (
            [
                "pretrain",
                "quickstart",
                "training.batch_size=1",
                "data.classes=4",
                "method={name: supervised, classes: 4}",
            ],
            ["training.batch_size 1 leaves one image in a batch", "backbone.network.bn1", "at least two are needed"],
        ),
        (["pretrain", "quickstart", "optimizer.name=lars", "engine.name=deepspeed"], ["zero_stage"]),
        (["pretrain", "quickstart", "--resume"], ["--run"]),
        (["evaluate", "empty", "--on", "digits"], ["not a run folder"]),
        (["evaluate", "run", "--on", "digit"], ["digits"]),
        (["evaluate", "run", "--on", "digits", "--protocol", "linaer"], ["linear"]),
        (["render", "ifs", "size=0"], ["size"]),
        (["render", "ifs", "points=1000000000"], ["points"]),
        (["render", "mask_mix"], ["mask_mix is no generator", "wildfern views"]),
        (["render", "isf"], ["unknown generator 'isf'; did you mean ifs? There are: contours"]),
        (["render", "ifs", "--start", "9223372036854775807"], ["--start", "4611686018427387904"]),
        (
            ["pretrain", "quickstart", "optimizer.learning_rate=1e308", "optimizer.weight_decay=1e39"],
            [
                f"optimizer.{key}: must be less than or equal to 1000000, got 1e+3"
                for key in ("learning_rate", "weight_decay")
            ],
        ),
        (["render", "ifs", "--grid", "8"], ["8x8"]),
        (["export", "run", "--format", "tim"], ["timm"]),
        (["report", "empty", "--out", "r.html"], ["empty"]),
        (["bench", "everything"], ["generators"]),
        (["bench", "losses", "--compile"], ["pipeline"]),
        (["bench", "augmentation", "training.batch_size=8"], ["pipeline"]),
        (["bench", "pipeline", "training.batchsize=8"], ["training.batch_size"]),
        (["bench", "pipeline", "--recipe", "quickstar"], ["quickstart"]),
    ],
)
def test_one_clear_message(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    if {"run", "./run"} & set(arguments):
        pretrain("quickstart", [*TINY, "training.steps=1"], run="run")
    monkeypatch.setattr(sys, "argv", ["wildfern", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    text = capsys.readouterr().err
    assert end.value.code == 2, text
    for word in words:
        assert word in text


def test_a_run_is_not_overwritten(wildfern):
    first = ["pretrain", "quickstart", *TINY, "training.steps=1", "--run", "run"]
    assert wildfern(*first).returncode == 0
    assert "--resume" in said(wildfern(*first))
