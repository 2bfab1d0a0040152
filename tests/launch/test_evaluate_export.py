"""Evaluation and export of a finished run."""

import errno
import hashlib
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_runs import TINY
from typer.testing import CliRunner

import wildfern
from wildfern.launch import evaluate, pretrain, saved_evaluation
from wildfern.launch.cli import app, export
from wildfern.launch.errors import RunError
from wildfern.launch.evaluate_datasets import Unfinished
from wildfern.launch.evaluating import NotWritten
from wildfern.launch.exporting import NAMES, export_backbone, loading_code
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.saved_evaluation import merged, save_merged
from wildfern.ssl.evaluation import EvaluationResult, read_run
from wildfern.ssl.models import Backbone

MODEL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrain("quickstart", [*TINY, "training.steps=2"], run=tmp_path_factory.mktemp("export") / "run")


def test_timm_loads_the_export_strictly(run):
    said = export_backbone(run, "timm")
    state = torch.load(run / "exported.pth", weights_only=True)
    model = timm.create_model("resnet18", num_classes=0, **MODEL)
    assert str(model.load_state_dict(state)) == "<All keys matched successfully>"
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), RunFolder(run).backbone()(x))
    assert "timm.create_model" in said


@pytest.mark.parametrize("extra", [[], ["model.stem=small"], ["model.arguments.stem_width=16"]])
def test_the_code_that_export_prints_loads_the_weights(extra, tmp_path):
    run = pretrain("quickstart", [*TINY, *extra, "training.steps=1"], run=tmp_path / "run")
    for format in ("timm", "safetensors"):
        code = "\n".join(line[4:] for line in export_backbone(run, format).splitlines() if line.startswith("    "))
        names: dict = {}
        exec(code, names)
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(names["model"].eval()(x), RunFolder(run).backbone()(x))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_models_are_loaded_with_torchvision_only(name, tmp_path):
    backbone = Backbone(f"torchvision/{name}").eval()
    save_file(backbone.network.state_dict(), tmp_path / "weights.safetensors")
    views = SimpleNamespace(name="simclr", arguments={"size": 64})
    model = SimpleNamespace(backbone=backbone.name, arguments={}, stem="standard")
    read = f'safetensors.torch.load_file("{tmp_path / "weights.safetensors"}")'
    names: dict = {}
    code = loading_code(SimpleNamespace(model=model, views=views, data=[]), backbone.network, read)
    exec("\n".join(line[4:] for line in code.splitlines()), names)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(x), backbone(x))
    assert names["preprocessing"]["input_size"] == (3, 64, 64)


@pytest.mark.parametrize("format", ["timm", "safetensors"])
def test_the_printed_code_is_whole_and_carries_the_preprocessing(format, run, tmp_path, monkeypatch, capsys):
    """In a narrow terminal, in a folder that does not exist yet, and away from the run."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.chdir(tmp_path)
    out = f"a rather long name of a folder/with 'quotes' [bold]/weights{'.pth' if format == 'timm' else '.safetensors'}"
    export(run, format, Path(out))
    code = [line[4:] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert str(run) not in "\n".join(code)
    names: dict = {}
    exec("\n".join(code), names)
    config = timm.data.resolve_data_config(model=names["model"])
    assert config["input_size"] == (3, 32, 32)
    assert (config["mean"], config["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (config["interpolation"], config["crop_pct"]) == ("bilinear", 1.0)
    assert [type(step).__name__ for step in names["transform"].transforms][:2] == ["Resize", "CenterCrop"]
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(x), RunFolder(run).backbone()(x))


@pytest.mark.parametrize(
    ("format", "out", "words"),
    [
        ("timm", "x.safetensors", "has the suffix of the format safetensors, but --format is timm"),
        ("safetensors", "x.pth", "has the suffix of the format timm"),
        ("timm", ".", "is a folder: give the file to write"),
        ("timm", "file/x.pth", "cannot write file/x.pth"),
        ("safetensors", "file/x.safetensors", "cannot write file/x.safetensors"),
        ("safetensors", "RUN/backbone.safetensors", "it belongs to the run"),
        ("timm", "RUN/recipe.yaml", "it belongs to the run"),
    ],
)
def test_impossible_exports_are_refused(format, out, words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=words):
        export_backbone(run, format, Path(out.replace("RUN", str(run))))


def test_load_backbone_gives_trained_and_initial_weights(run):
    trained, initial = wildfern.load_backbone(run), wildfern.load_backbone(str(run), trained=False)
    state = load_file(run / "backbone.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in trained.network.state_dict().items())
    assert trained.weights_sha256 == RunFolder(run).backbone_sha256()
    assert initial.weights_sha256 is None
    assert not torch.equal(initial.network.conv1.weight, trained.network.conv1.weight)
    assert not trained.training
    with pytest.raises(ValueError, match=r"no recipe\.yaml"):
        wildfern.load_backbone(run.parent)


def test_evaluation_compares_with_the_untrained_network_and_adds_up(run):
    first = evaluate(run, on=["digits"], protocols=["knn"])
    assert [row["backbone"] for row in first.main_rows()] == ["random", "pretrained"]
    evaluate(run, on=["digits"], protocols=["linear"])
    written = json.loads((run / "evaluation.json").read_text())
    assert {row["protocol"] for row in written["rows"]} == {"knn", "linear"}
    assert set(written["protocols"]) == {"knn", "linear"}


def test_rows_of_another_backbone_are_not_kept(run, tmp_path):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    (folder.path / "evaluation.json").unlink(missing_ok=True)

    def written(*protocols: str, accuracy: float = 0.5) -> dict:
        row = {"dataset": "digits", "backbone": "pretrained", "metric": "accuracy", "value": accuracy}
        rows = [{**row, "protocol": p, "metric": m} for p in protocols for m in ("accuracy", "balanced_accuracy")]
        words = {p: f"{p} in words" for p in protocols}
        evaluation = {"baseline": "random", "protocols": words, "rows": rows}
        folder.write_json("evaluation.json", merged(folder, evaluation))
        return json.loads((folder.path / "evaluation.json").read_text())

    first = written("knn")
    assert first["backbone_sha256"] == hashlib.sha256((folder.path / "backbone.safetensors").read_bytes()).hexdigest()
    again = written("linear", "knn", accuracy=0.75)
    assert [(row["protocol"], row["value"]) for row in again["rows"]] == [("linear", 0.75)] * 2 + [("knn", 0.75)] * 2
    both = written("finetune")
    assert list(dict.fromkeys(row["protocol"] for row in both["rows"])) == ["linear", "knn", "finetune"]

    folder.write_backbone({name: value + 1 for name, value in folder.backbone().network.state_dict().items()})
    later = written("linear")
    assert {row["protocol"] for row in later["rows"]} == {"linear"}
    assert set(later["protocols"]) == {"linear"}
    assert later["backbone_sha256"] != first["backbone_sha256"]

    without = {key: value for key, value in later.items() if key != "backbone_sha256"}  # as an earlier version wrote it
    folder.write_json("evaluation.json", without)
    assert {row["protocol"] for row in written("knn")["rows"]} == {"knn"}

    old = {"dataset": "digits", "protocol": "linear", "backbone": "pretrained", "accuracy": 0.25, "std": None}
    folder.write_json("evaluation.json", {**later, "rows": [old]})
    rows = {row["protocol"]: row for row in written("knn")["rows"]}
    assert (rows["linear"]["metric"], rows["linear"]["value"]) == ("accuracy", 0.25)


def test_two_evaluations_that_end_at_once_both_keep_their_rows(run, tmp_path, monkeypatch):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    (folder.path / "evaluation.json").unlink(missing_ok=True)

    def slow(*arguments: Any) -> dict:
        found = merged(*arguments)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(saved_evaluation, "merged", slow)

    def save(protocol: str) -> None:
        row = {"dataset": "digits", "backbone": "pretrained", "protocol": protocol, "metric": "accuracy", "value": 0.5}
        save_merged(folder, EvaluationResult((row,), {}), lambda message: None)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(save, ["knn", "linear", "finetune"]))
    written = json.loads((folder.path / "evaluation.json").read_text())
    assert {row["protocol"] for row in written["rows"]} == {"knn", "linear", "finetune"}


def test_notes_of_other_data_sets_are_kept(run, tmp_path):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    (folder.path / "evaluation.json").unlink(missing_ok=True)

    def written(dataset: str, *notes: str) -> dict:
        row = {"dataset": dataset, "protocol": "knn", "backbone": "pretrained", "metric": "accuracy", "value": 0.5}
        evaluation = {
            "baseline": "untrained",
            "protocols": {},
            "notes": {dataset: list(notes)} if notes else {},
            "rows": [row],
        }
        folder.write_json("evaluation.json", merged(folder, evaluation))
        return json.loads((folder.path / "evaluation.json").read_text())["notes"]

    written("a", "of a")
    assert written("b", "of b") == {"a": ["of a"], "b": ["of b"]}
    assert written("a") == {"b": ["of b"]}


def test_the_hash_is_that_of_the_weights_before_the_evaluation(run, tmp_path):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    before = folder.backbone_sha256()

    def replace(words: str) -> None:
        if "features" not in words:  # the networks are not built yet
            return
        folder.write_backbone({name: value + 1 for name, value in folder.backbone().network.state_dict().items()})

    evaluate(folder.path, on=["digits"], protocols=[], few_shot=[5], seeds=1, announce=replace)
    assert folder.backbone_sha256() != before
    assert json.loads((folder.path / "evaluation.json").read_text())["backbone_sha256"] == before


def test_a_run_can_be_evaluated_without_its_training_images(run, monkeypatch, tmp_path):
    recipe = run / "recipe.yaml"
    text = recipe.read_text()
    monkeypatch.chdir(tmp_path)
    try:
        recipe.write_text(re.sub(r"^data:\n(  .*\n)+", "data:\n  source: folder:gone\n", text, flags=re.MULTILINE))
        assert evaluate(run, on=["digits"], protocols=["knn"]).rows
    finally:
        recipe.write_text(text)


def test_onnx_gives_the_same_features_for_any_number_of_images(run):
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    from onnx.reference import ReferenceEvaluator

    assert "written to" in export_backbone(run, "onnx")
    x = torch.rand(3, 3, 32, 32)
    found = ReferenceEvaluator(onnx.load(run / "exported.onnx")).run(None, {"images": x.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), RunFolder(run).backbone()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("format", ["timm", "safetensors"])
def test_an_export_is_written_as_a_whole_and_follows_no_link_in_the_run_folder(format, run, tmp_path, monkeypatch):
    victim, out = tmp_path / "victim", run / NAMES[format]
    victim.write_text("precious")
    out.unlink(missing_ok=True)
    out.symlink_to(victim)
    export_backbone(run, format)
    assert victim.read_text() == "precious"
    whole = out.read_bytes()

    def full(state, path, *metadata):
        (path if isinstance(path, Path) else Path(path.name)).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed\nat …")

    monkeypatch.setattr("torch.save", full)
    monkeypatch.setattr("wildfern.launch.exporting.save_file", full)
    with pytest.raises(RunError, match=rf"cannot write .*{NAMES[format]}: PytorchStreamWriter failed writing file"):
        export_backbone(run, format)
    assert out.read_bytes() == whole
    assert not list(run.glob(".partial_*"))


def test_the_backbone_has_the_read_permissions_of_the_folder(tmp_path):
    tmp_path.chmod(0o755)
    RunFolder(tmp_path).write_backbone({"weight": torch.ones(1)})
    assert (tmp_path / "backbone.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_read_only_run_is_evaluated_and_nothing_is_written(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    before = sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir())
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != folder)
    assert evaluate(folder, "digits", "knn").rows
    assert sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir()) == before


@pytest.mark.parametrize("module", ["wildfern.launch.run_folder", "wildfern.ssl.evaluation.report.page"])
def test_scores_are_shown_where_the_disk_is_full(module, run, tmp_path, monkeypatch):
    folder, other = shutil.copytree(run, tmp_path / "run"), tmp_path / "other.json"
    before = sorted(file.name for file in folder.iterdir())

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(f"{module}.write_text", full)
    words = ["evaluate", str(folder), "--on", "digits", "--protocol", "knn", "--json", str(other)]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, NotWritten)
    assert re.search(r"cannot write .*(evaluation\.json|report\.html): No space left", str(done.exception))
    assert "pretrained" in done.output
    assert "written to " + str(folder) not in done.output
    assert json.loads(other.read_text())["rows"] == done.exception.evaluation.as_json()["rows"]
    new = set(file.name for file in folder.iterdir()) - set(before)
    assert new <= {"evaluation.json", "evaluation_details"}


def test_scores_are_shown_and_written_where_one_protocol_or_data_set_fails(run, tmp_path):
    """A folder of one class, and an evaluator that refuses: the table, the files and the report have all the rest."""
    folder, one_class = shutil.copytree(run, tmp_path / "run"), tmp_path / "one_class"
    (folder / "evaluation.json").unlink(missing_ok=True)
    for number in range(10):
        file = one_class / "cats" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(file)
    plugin = tmp_path / "refuses.py"
    plugin.write_text(
        "from wildfern.registry import register\nfrom wildfern.ssl.evaluation import Evaluator\n\n"
        "@register('evaluator', 'refuses')\nclass Refuses(Evaluator):\n"
        "    def __call__(self, train, test):\n        raise ValueError('not these images')\n\n"
        "    def describe(self):\n        return 'refuses'\n"
    )
    words = ["evaluate", str(folder), "--on", f"folder:{one_class}", "--on", "digits", "--plugin", str(plugin)]
    words += ["--protocol", "refuses,knn", "--json", str(tmp_path / "rows.json")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, Unfinished)
    message = str(done.exception)
    assert "all labeled images are of one class" in message.partition(";")[0]
    assert message.endswith("digits: refuses: not these images. All other scores are complete")
    assert "pretrained" in done.output
    for file in (tmp_path / "rows.json", folder / "evaluation.json"):
        assert {(r["dataset"], r["protocol"]) for r in json.loads(file.read_text())["rows"]} == {("digits", "knn")}, (
            file
        )
    assert "digits" in (folder / "report.html").read_text()


def test_several_runs_and_networks_get_a_folder_with_a_report_of_their_own(run, tmp_path):
    runs = [shutil.copytree(run, tmp_path / name) for name in ("one", "other")]
    before = [sorted(file.name for file in folder.iterdir()) for folder in runs]
    out = tmp_path / "new" / "both"
    words = [
        "evaluate",
        *map(str, runs),
        "--backbone",
        "pixels",
        "--on",
        "digits",
        "--protocol",
        "knn",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert [sorted(file.name for file in folder.iterdir()) for folder in runs] == before
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    assert list(dict.fromkeys(row["backbone"] for row in rows)) == ["resnet18 random", "one", "other", "pixels"]
    record = read_run(out)
    assert record.title == "4 networks evaluated on digits"
    assert record.remarks == ()
    page = (out / "report.html").read_text()
    assert "resnet18 random, one, other, pixels." in page
    assert "Map of digits" in page  # of test images, which the details have
    again = evaluate(runs[0], "digits", "knn", out=out)  # replaces the former
    assert json.loads((out / "evaluation.json").read_text())["rows"] == again.as_json()["rows"]


def test_the_folder_of_an_evaluation_is_a_new_one(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for folder, why in (
        (run, "is a run folder"),
        (tmp_path / "full", "has other files"),
        (run / "recipe.yaml", "cannot"),
    ):
        with pytest.raises(RunError, match=why):
            evaluate(run, "digits", "knn", out=folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_an_export_to_a_full_disk_says_so(run):
    with pytest.raises(RunError, match="cannot write /dev/full: No space left on device"):
        export_backbone(run, out=Path("/dev/full"))


def test_a_report_says_what_it_leaves_out(run, tmp_path, wildfern):
    (tmp_path / "empty").mkdir()
    whole = shutil.copytree(run, tmp_path / "whole")
    (whole / "timings.jsonl").unlink()
    process = wildfern("report", "empty", "whole", "--out", "r.html")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0] == "left out: empty is not a run folder: it has neither recipe.yaml nor metrics.jsonl"
    assert "whole: no timings.jsonl (images/s and data wait)" in lines
    assert lines[-1] == "written to r.html"
    assert "whole" in (tmp_path / "r.html").read_text()
