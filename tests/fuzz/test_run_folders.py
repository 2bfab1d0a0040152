"""Mutated recipes, manifests, metrics and evaluations of a run folder: read, set aside, left out with a remark, or refused."""

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import NESTED, NUMBERS, TEXTS, YAML, changed_documents, near
from safetensors.torch import save_file
from time_limit import at_most

from wildfern.bounded_json import parse_json
from wildfern.bounded_yaml import parse_yaml
from wildfern.recipes import read_yaml, recipe_text
from wildfern.ssl.evaluation import read_run, write_report
from wildfern.ssl.models.checkpoint_file import read_tensors
from wildfern.ssl.tracking import JsonLines, read_records, read_undamaged
from wildfern.ssl.training.checksums import CorruptCheckpoint, check, write_manifest

SECONDS = 10
RECIPES = [recipe_text(name).encode() for name in ("quickstart", "cacr_cifar10", "mix_folder_and_ifs")]
METRICS = b"".join(json.dumps({"step": s, "loss": 1 / (s + 1), "note": "text"}).encode() + b"\n" for s in range(4))
ROW = {"dataset": "digits", "protocol": "knn", "backbone": "pretrained", "metric": "accuracy", "value": 0.5, "low": 0.4}
EVALUATION = {
    "baseline": "random",
    "protocols": {"knn": "cosine, k=20"},
    "notes": {"digits": ["a note"]},
    "rows": [ROW | {"high": 0.6, "n": 360, "share": True, "detail": ""}, ROW | {"backbone": "random", "share": True}],
    "backbone_sha256": "0" * 64,
}
ENVIRONMENT = {"versions": {"torch": "2.6"}, "plugins": [{"kind": "views", "name": "x", "origin": "y"}], "weights": {}}


@given(near(RECIPES, stumbles=[*YAML, *NUMBERS, *TEXTS, *NESTED]))
def test_yaml(content):
    text = content.decode("utf-8", "replace")
    with at_most(SECONDS):
        value, problems = read_yaml(text, "my.yaml")
        assert value is not None or problems or not parse_yaml(text)
        with contextlib.suppress(ValueError):
            parse_yaml(text)


@given(near([METRICS, json.dumps(EVALUATION).encode()]))
def test_json(content):
    with at_most(SECONDS), contextlib.suppress(ValueError):
        json.dumps(parse_json(content)).encode()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "training.safetensors").write_bytes(b"weights")
    write_manifest(folder, {"step": 3, "batch_size": 8, "items": [None]})
    return (folder / "checkpoint.json").read_bytes()


@given(data=st.data())
def test_manifests_of_checkpoints(manifest, data):
    content = data.draw(near([manifest], stumbles=[*NUMBERS, *TEXTS, *NESTED]))
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        (Path(folder) / "training.safetensors").write_bytes(b"weights")
        (Path(folder) / "checkpoint.json").write_bytes(content)
        try:
            assert check(Path(folder))["step"] == 3
        except CorruptCheckpoint as error:
            assert str(error)
        else:
            assert json.loads(content) == json.loads(manifest)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    state = {"conv.weight": torch.zeros(2, 3), "bn.num": torch.tensor(1)}
    save_file(state, folder / "a.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, folder / "b.pth")
    torch.save({"state_dict": state}, folder / "c.pth", _use_new_zipfile_serialization=False)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@given(data=st.data())
def test_files_of_weights(weights, data):
    content = data.draw(near(weights))
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        path = Path(folder) / "weights.pth"
        path.write_bytes(content)
        try:
            found = read_tensors(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


@given(near([METRICS]), st.integers(0, 5))
def test_metrics(content, step):
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        path = Path(folder) / "metrics.jsonl"
        path.write_bytes(content)
        readable = read_undamaged(path)[0]
        with JsonLines.resume(path, step) as file:
            file.write({"step": step, "loss": 1.0})
        before = [record for record in readable if record.get("step", -1) < step]
        assert read_records(path) == [*before, {"step": step, "loss": 1.0}]
        assert (
            read_undamaged(path.with_name("metrics.jsonl.damaged"))[1] if len(list(path.parent.iterdir())) > 1 else True
        )


@settings(max_examples=max(1, settings().max_examples // 4))
@given(
    evaluation=changed_documents(EVALUATION),
    environment=changed_documents(ENVIRONMENT),
    metrics=near([METRICS], most=2),
    recipe=near(RECIPES, stumbles=[*YAML, *NESTED], most=2),
)
def test_reports(evaluation, environment, metrics, recipe):
    with tempfile.TemporaryDirectory() as folder, at_most(SECONDS):
        run = Path(folder)
        (run / "recipe.yaml").write_bytes(recipe)
        (run / "metrics.jsonl").write_bytes(metrics)
        (run / "evaluation.json").write_text(json.dumps(evaluation))
        (run / "environment.json").write_text(json.dumps(environment))
        page = write_report([read_run(run)], run / "report.html").read_text(encoding="utf-8")
        assert "<script>" not in page
