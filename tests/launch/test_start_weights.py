"""Runs that start from a file of weights, and evaluation of networks that no run has trained."""

import hashlib
import json
import shutil

import pytest
import timm
import torch
from small_runs import TINY
from typer.testing import CliRunner

import wildfern
from wildfern.launch import evaluate, pretrain
from wildfern.launch.cli import app
from wildfern.launch.errors import RunError
from wildfern.launch.exit_codes import explained
from wildfern.launch.exporting import export_backbone
from wildfern.launch.run_folder import RunFolder

ARGUMENTS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
ON = ["digits"]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A run that started from the teacher of a checkpoint with a student, and this file."""
    folder = tmp_path_factory.mktemp("started")
    file = folder / "checkpoint.pth"
    torch.manual_seed(5)
    state = timm.create_model("resnet18", num_classes=0, **ARGUMENTS).state_dict()
    teacher = {f"backbone.{name}": value for name, value in state.items()}
    student = {f"module.backbone.{name}": value * 0 for name, value in state.items()}
    torch.save({"student": student, "teacher": teacher | {"head.weight": torch.ones(2)}}, file)
    run = pretrain(
        "quickstart", [*TINY, f"model.weights={file}", "model.stem=standard", "training.steps=2"], folder / "run"
    )
    return run, file


@pytest.fixture
def copied(started, tmp_path):
    """A copy of the run, whose file of weights can be moved away and is back afterwards."""
    run, file = started
    yield shutil.copytree(run, tmp_path / "copied"), file
    if (away := file.with_suffix(".away")).exists():
        away.replace(file)


def rows(result):
    return {row["backbone"]: (row["value"], result.difference(row)) for row in result.main_rows()}


def test_the_weights_are_recorded_and_evaluated(started):
    run, file = started
    recorded = json.loads((run / "environment.json").read_text())["weights"]
    assert recorded["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (recorded["file"], recorded["prefix"]) == ("checkpoint.pth", "teacher.backbone.")
    assert str(file.parent) not in (run / "environment.json").read_text()
    assert wildfern.load_backbone(run, trained=False).weights_sha256 == recorded["sha256"]
    found = rows(evaluate(run, ON, "knn"))
    assert list(found) == ["random", "start", "pretrained"]
    assert found["random"][1] is None
    assert found["start"][1] == pytest.approx(100 * (found["start"][0] - found["random"][0]))
    assert len({value for value, _ in found.values()}) > 1


def test_the_message_at_the_start_names_file_prefix_and_what_is_not_used(tmp_path, started, capsys):
    _, file = started
    changes = [*TINY, f"model.weights={file}", "model.stem=standard", "model.weights_key=student", "training.steps=1"]
    pretrain("quickstart", changes, tmp_path / "run")
    said = capsys.readouterr().out.replace("\n", " ")
    assert "under student.module.backbone; not used: teacher.backbone.conv1.weight, " in said


def test_a_run_does_not_need_the_file_again(copied, capsys):
    run, file = copied
    before = json.loads((run / "environment.json").read_text())["weights"]
    file.rename(file.with_suffix(".away"))
    said = []
    assert list(rows(evaluate(run, ON, "knn", say=said.append))) == ["random", "pretrained"]
    assert said == [f"the row `start` is left out: model.weights: there is no file or folder {file}"]
    export_backbone(run)
    pretrain(run / "recipe.yaml", ["training.steps=3"], run, resume=True)
    assert "resumed from step 2" in capsys.readouterr().out
    assert json.loads((run / "environment.json").read_text())["weights"] == before


def test_a_changed_file_gives_no_row(copied):
    run, file = copied
    shutil.copy(file, file.with_suffix(".away"))
    torch.save({**torch.load(file, weights_only=True), "epoch": 3}, file)
    backbone, reason = RunFolder(run).start_backbone(RunFolder(run).recipe())
    assert backbone is None
    assert reason == f"the row `start` is left out: {file} has changed since training started from it"


def test_networks_are_evaluated_beside_runs_with_their_own_preprocessing(started, tmp_path, monkeypatch):
    run, _ = started
    other = shutil.copytree(run, tmp_path / "other")
    written = (run / "evaluation.json").read_bytes() if (run / "evaluation.json").exists() else None
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", str(run), str(other), "--on", "digits", "--protocol", "knn", "--json", "all.json"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "all.json").read_text())
    labels = list(dict.fromkeys(row["backbone"] for row in stored["rows"]))
    assert labels == ["resnet18 random", "run start", "run", "other start", "other"]
    assert stored["baseline"] == dict.fromkeys(labels[1:], "resnet18 random")
    assert written == ((run / "evaluation.json").read_bytes() if written else None)

    single = evaluate(run, ON, "knn", backbones=["test_resnet", ("test_resnet", None)], size=32)
    assert list(rows(single)) == ["random", "start", "pretrained", "test_resnet random", "test_resnet random (2)"]
    kept = {row["backbone"] for row in json.loads((run / "evaluation.json").read_text())["rows"]}
    assert kept == {"random", "start", "pretrained"}
    values = rows(single)
    assert values["test_resnet random (2)"] == (values["test_resnet random"][0], 0.0)


def test_networks_are_evaluated_without_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": timm.create_model("test_vit", num_classes=7).state_dict()}, tmp_path / "x.pth")
    words = ["evaluate", "--on", "digits", "--protocol", "knn", "--size", "32"]
    words += ["--backbone", "test_vit", "--weights", "random", "--backbone", "test_vit", "--weights", "x.pth"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert (
        "weights of test_vit from x.pth, under model; resized pos_embed [1, 101, 64] to [1, 5, 64]; not used: model.head"
        in said
    )
    assert "not written to a file" in said
    assert not [path for path in tmp_path.iterdir() if path.name != "x.pth"]
    backbone = wildfern.load_backbone(("test_vit", tmp_path / "x.pth"))
    assert (backbone.size, backbone.mean, backbone.training) == (160, (0.5, 0.5, 0.5), False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["RUN/backbone.safetensors"], "is a file in a run folder: name the folder "),
        (["nowhere"], "there is no run folder nowhere"),
        (["--backbone", "x.pth"], "is a file or folder, not the name of a network: --backbone NAME --weights x.pth"),
        (["--backbone", "resnet18", "--weights", "https://a.org/x.pth"], "is not downloaded: download it, and give the file"),
        (["--backbone", "resnet18", "--weights", ""], "must be a path, timm or timm:TAG, got ''"),
        (["--backbone", "resnet18", "--weights", "."], r"name the file itself, for example x\.pth"),
        (["x.pth"], r"x\.pth is a file, not a run folder; to evaluate a file of weights: --backbone NAME --weights x\.pth"),
        (["resnet18"], "there is no run folder resnet18; to evaluate a network of this name: --backbone resnet18"),
        ([], "nothing to evaluate: name a run folder, or a network with --backbone NAME"),
        (["--backbone", "resnet19"], "unknown backbone 'resnet19'; did you mean"),
        (["--backbone", "resnet18", "--weights", "no.pth"], r"model\.weights: there is no file or folder no\.pth"),
        (["--backbone", "resnet18", "--weights", "a", "--weights", "b"], "once for each --backbone, .* 2 for 1"),
        (["--backbone", "resnet18", "--weights", "x.pth"], r"x\.pth .*is empty"),
        (["--backbone", "inception_v4", "--size", "20"], "inception_v4 cannot run on images of 20 × 20 px"),
        (["--size", "32", "RUN"], "--size is for --backbone"),
        (["RUN", "RUN"], "is named twice"),
    ],
)  # fmt: skip
def test_impossible_evaluations_are_refused_in_one_line(words, expected, started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").touch()
    words = [word.replace("RUN", str(started[0])) for word in words]
    with pytest.raises(RunError, match=expected) as caught:
        CliRunner().invoke(app, ["evaluate", *words, "--on", "digits"], catch_exceptions=False)
    code, message = explained(caught.value)
    assert (code, message.count("\n")) == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"run": 3}, "run must be a run folder, or a list of them; got 3"),
        ({"run": [3]}, "the path of a run folder must be a text, got int"),
        ({"on": 3}, "on must be a data set such as digits"),
        ({"protocols": 3}, "protocols must be a protocol such as knn"),
        ({"backbones": ("test_vit", None)}, r"backbones\.1 must be the name of a network, or a pair .* got NoneType"),
        ({"backbones": [("test_vit", {})]}, r"backbones\.0 must be"),
        ({"backbones": ["test_vit"], "size": "32"}, "size must be a whole number of pixels, at least 1, got '32'"),
        ({"backbones": ["test_vit"], "size": 0}, "size must be a whole number"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_in_words(arguments, expected):
    with pytest.raises(RunError, match=expected):
        evaluate(**{"on": "digits", "protocols": "knn", **arguments})


def test_single_values_stand_for_lists_and_pairs_load():
    assert (
        len(evaluate(on="digits", protocols="knn", backbones="test_vit", few_shot=2, seeds=1, size=32).main_rows()) == 3
    )
    assert wildfern.load_backbone(["test_resnet", "random"]).name == "test_resnet"
    for wrong, expected in {
        "resnet18": r"a network of this name is \('resnet18', None\)",
        ("resnet18",): "a pair of name and weights",
        3: "the path of a run folder must be a text",
    }.items():
        with pytest.raises(RunError, match=expected):
            wildfern.load_backbone(wrong)
    with pytest.raises(ValueError, match="must be a path, timm or timm:TAG, got dict"):
        wildfern.load_backbone(("test_resnet", {}))
    with pytest.raises(RunError, match=r"overrides are texts such as training.steps=100, got 3"):
        pretrain("quickstart", [3])
    with pytest.raises(RunError, match="the recipe is a name, a path or a Recipe, got int"):
        pretrain(3)
