"""From a finished run to accuracies and to other people's programs."""

import json
import re

import pytest
import timm
import torch
from small_runs import TINY

from wildfern.launch import evaluate, pretrain
from wildfern.launch.exporting import export_backbone
from wildfern.launch.run_folder import RunFolder

MODEL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrain("quickstart", [*TINY, "training.steps=2"], run=tmp_path_factory.mktemp("export") / "run")


def test_timm_takes_the_export_strictly(run):
    said = export_backbone(run, "timm")
    state = torch.load(run / "backbone_timm.pth", weights_only=True)
    model = timm.create_model("resnet18", num_classes=0, **MODEL)
    assert str(model.load_state_dict(state)) == "<All keys matched successfully>"
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), RunFolder(run).backbone()(x))
    assert "timm.create_model" in said


@pytest.mark.parametrize("extra", [[], ["model.stem=small"]])
def test_the_code_that_export_prints_loads_the_weights(extra, tmp_path):
    run = pretrain("quickstart", [*TINY, *extra, "training.steps=1"], run=tmp_path / "run")
    for format in ("timm", "safetensors"):
        code = "\n".join(line[4:] for line in export_backbone(run, format).splitlines() if line.startswith("    "))
        names: dict = {}
        exec(code, names)
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(names["model"].eval()(x), RunFolder(run).backbone()(x))


def test_evaluation_holds_the_run_against_the_untrained_network_and_adds_up(run):
    first = evaluate(run, on=["digits"], protocols=["knn"])
    assert [row["backbone"] for row in first.rows] == ["untrained", "pretrained"]
    evaluate(run, on=["digits"], protocols=["linear"])
    written = json.loads((run / "evaluation.json").read_text())
    assert {row["protocol"] for row in written["rows"]} == {"knn", "linear"}
    assert set(written["protocols"]) == {"knn", "linear"}


def test_a_run_can_be_evaluated_where_its_training_pictures_are_not(run, monkeypatch, tmp_path):
    recipe = run / "recipe.yaml"
    text = recipe.read_text()
    monkeypatch.chdir(tmp_path)
    try:
        recipe.write_text(re.sub(r"^data:\n(  .*\n)+", "data:\n  source: folder:gone\n", text, flags=re.MULTILINE))
        assert evaluate(run, on=["digits"], protocols=["knn"]).rows
    finally:
        recipe.write_text(text)


def test_onnx_gives_the_same_features_for_any_number_of_pictures(run):
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    from onnx.reference import ReferenceEvaluator

    assert "written to" in export_backbone(run, "onnx")
    x = torch.rand(3, 3, 32, 32)
    found = ReferenceEvaluator(onnx.load(run / "backbone_onnx.onnx")).run(None, {"pictures": x.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), RunFolder(run).backbone()(x), rtol=1e-3, atol=1e-4)


def test_whoever_may_read_the_folder_may_read_the_backbone(tmp_path):
    tmp_path.chmod(0o755)
    RunFolder(tmp_path).write_backbone({"weight": torch.ones(1)})
    assert (tmp_path / "backbone.safetensors").stat().st_mode & 0o777 == 0o644
