"""Every format of an export gives the features of the run, or the export says why not and leaves everything as it was."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import TINY
from timm.models.vision_transformer import VisionTransformer

from wildfern.launch import exporting
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.launch.export_torchvision import transformer_weights
from wildfern.launch.exporting import NAMES, export_backbone
from wildfern.launch.run_folder import RunFolder

NARROW = "{layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], stem_width: 64}"
NETWORKS = {
    "resnet": ["model.backbone=resnet18", f"model.arguments={NARROW}"],
    "cifar": ["model.backbone=resnet18", f"model.arguments={NARROW}", "model.stem=cifar"],
    "vit": [
        "model.backbone=vit_tiny_patch16_224",
        "model.arguments={img_size: 32, depth: 2, embed_dim: 32, num_heads: 2}",
    ],
    "torchvision": ["model.backbone=resnet18", "model.arguments={}", "model.stem=cifar"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders with random weights, whose normalization and residual blocks have an effect."""

    def begun(name: str) -> Path:
        plain = [change for change in TINY if not change.startswith(("model.", "data."))]
        folder = RunFolder(tmp_path_factory.mktemp("export") / name)
        folder.begin(read_recipe("quickstart", [*plain, *NETWORKS[name]]))
        state = folder.backbone(trained=False).network.state_dict()
        generator = torch.Generator().manual_seed(0)
        for key, value in state.items():
            if key.endswith(("running_var", "bn2.weight", "cls_token")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
            elif key.endswith("running_mean"):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        folder.write_backbone(state)
        return folder.path

    made: dict[str, Path] = {}
    return lambda name: made.setdefault(name, begun(name)) if name not in made else made[name]


def code_of(said: str) -> dict:
    names: dict = {}
    exec("\n".join(line[4:] for line in said.splitlines() if line.startswith("    ")), names)
    return names


def assert_same_features(network, run, limit=1e-6, channels=3):
    for count in (1, 5):
        images = torch.randn(count, channels, 32, 32, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            found, expected = network(images), RunFolder(run).backbone()(images)
        assert found.shape == expected.shape
        assert count == 1 or (expected.std(0) > 0).any()
        assert (found - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize("name", ["resnet", "cifar", "vit"])
def test_the_printed_code_of_the_formats_for_timm_gives_the_features(name, runs, tmp_path):
    for format in ("timm", "safetensors"):
        said = export_backbone(runs(name), format, tmp_path / NAMES[format])
        assert "read back, the features of 3 random images are those of the run" in said
        assert_same_features(code_of(said)["model"].eval(), runs(name))


@pytest.mark.parametrize("name", ["cifar", "vit"])
def test_a_program_of_torch_export_takes_any_number_of_images(name, runs, tmp_path):
    export_backbone(runs(name), "torch_export", tmp_path / "x.pt2")
    described = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "x.pt2", extra_files=described)
    assert_same_features(program.module(), runs(name))
    assert json.loads(described["metadata.json"])["stem"] == ("cifar" if name == "cifar" else "standard")


@pytest.mark.parametrize("name", ["cifar", "vit"])
def test_onnx_gives_the_features(name, runs, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    from onnx.reference import ReferenceEvaluator

    assert "(limit 1e-05)" in export_backbone(runs(name), "onnx", tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    session = ReferenceEvaluator(model)
    network = lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])  # noqa: E731
    assert_same_features(network, runs(name), 1e-5)
    assert {entry.key: entry.value for entry in model.metadata_props}["interpolation"] == "bilinear"


def test_torchvision_loads_the_weights_strictly(runs, tmp_path):
    run = runs("torchvision")
    said = export_backbone(run, "torchvision", tmp_path / "x.pth")
    model = torchvision.models.resnet18()
    assert load_names(tmp_path / "x.pth") == [name for name in model.state_dict() if not name.startswith("fc.")]
    assert "timm" not in said.split("\n\n", 1)[1]
    assert_same_features(code_of(said)["model"].eval(), run)


def load_names(path: Path) -> list[str]:
    return list(torch.load(path, weights_only=True))


def test_weights_of_a_vision_transformer_are_those_of_torchvision():
    torch.manual_seed(0)
    theirs = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=0).eval()
    model = torchvision.models.VisionTransformer(32, 8, 2, 3, 48, 192)
    model.heads = torch.nn.Identity()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
        assert str(model.load_state_dict(dict(transformer_weights(theirs.state_dict())))).startswith("<All keys")
        x = torch.randn(3, 3, 32, 32)
        torch.testing.assert_close(model.eval()(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "vit",
            "torchvision does not have the network vit_tiny_patch16_224, only resnet18, .* choose another --format",
        ),
        ("resnet", r"resnet18 with model\.arguments .* is not torchvision's resnet18 \(size mismatch"),
    ],
)
def test_networks_that_torchvision_does_not_have_are_refused(name, words, runs, tmp_path):
    with pytest.raises(RunError, match=words):
        export_backbone(runs(name), "torchvision", tmp_path / "x.pth")
    assert list(tmp_path.iterdir()) == []


def test_safetensors_describe_the_weights(runs, tmp_path):
    run = runs("cifar")
    export_backbone(run, "safetensors", tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        found = file.metadata()
    for key, name in (("weights_sha256", "backbone.safetensors"), ("recipe_sha256", "recipe.yaml")):
        assert found[key] == hashlib.sha256((run / name).read_bytes()).hexdigest()
    assert (found["network"], found["stem"], found["method"]) == ("resnet18", "cifar", "simclr")
    assert json.loads(found["arguments"])["channels"] == [8, 8, 8, 8]
    assert json.loads(found["input_size"]) == [3, 32, 32]
    assert json.loads(found["mean"]) == [0.485, 0.456, 0.406]
    assert (found["data"], found["licenses"]) == ("ifs (rendered while training)", "none (rendered)")
    assert set(load_file(tmp_path / "x.safetensors")) == set(load_file(run / "backbone.safetensors"))


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_timm_reads_the_folder_as_it_reads_its_own(name, runs, tmp_path):
    run, out = runs(name), tmp_path / "folder"
    said = export_backbone(run, "huggingface", out)
    assert f"local-dir:{out}" in said
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert_same_features(model.eval(), run)
    data = timm.data.resolve_data_config(model=model)
    assert (list(data["input_size"]), data["crop_pct"], data["interpolation"]) == ([3, 32, 32], 1.0, "bilinear")
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_classes"]) == ("timm_wrapper", 0)
    processor = json.loads((out / "preprocessor_config.json").read_text())
    assert (processor["size"], processor["crop_size"]) == ({"shortest_edge": 32}, {"height": 32, "width": 32})
    assert processor["image_mean"] == list(data["mean"])
    readme = (out / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: timm\n")
    assert "## Scores" in readme
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
    }


def test_a_network_that_timm_does_not_make_comes_with_its_code(runs, tmp_path):
    export_backbone(runs("cifar"), "huggingface", tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_backbone.BackboneModel"
    assert "pretrained_cfg" not in config
    code = (tmp_path / "folder" / "modeling_backbone.py").read_text()
    names: dict = {}
    exec(code[code.index("def build") :], names)
    model = names["build"]()
    state = load_file(tmp_path / "folder" / "model.safetensors")
    model.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state.items()})
    assert_same_features(model.eval(), runs("cifar"))


@pytest.mark.parametrize("name", ["resnet", "cifar", "vit"])
def test_transformers_loads_the_folder(name, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    transformers = pytest.importorskip("transformers")
    export_backbone(runs(name), "huggingface", tmp_path / "folder")
    trust = {"trust_remote_code": True} if name == "cifar" else {}
    model = transformers.AutoModel.from_pretrained(tmp_path / "folder", **trust)
    assert_same_features(lambda images: model(images).pooler_output, runs(name))


@pytest.mark.parametrize("format", ["timm", "safetensors", "huggingface"])
def test_features_that_differ_are_an_error_and_nothing_is_replaced(format, runs, tmp_path, monkeypatch):
    out = tmp_path / NAMES[format]
    export_backbone(runs("resnet"), format, out)
    files = [out] if out.is_file() else sorted(out.iterdir())
    before = [file.read_bytes() for file in files]

    def wrong(state, file, *metadata):
        state = {**state, "bn1.bias": state["bn1.bias"] + 1e-3}
        (torch_save if hasattr(file, "write") else save_file)(state, file, *metadata)

    torch_save = torch.save
    monkeypatch.setattr("torch.save", wrong)
    for module in ("exporting", "export_huggingface"):
        monkeypatch.setattr(f"wildfern.launch.{module}.save_file", wrong)
    with pytest.raises(RunError, match=r"was not written: read back, its features differ from the run's by \d"):
        export_backbone(runs("resnet"), format, out)
    assert [file.read_bytes() for file in files] == before
    assert not list(tmp_path.glob(".partial_*"))


def test_features_that_are_not_finite_are_an_error(runs, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(RunFolder(runs("resnet")).recipe())
    state = load_file(runs("resnet") / "backbone.safetensors")
    run.write_backbone({**state, "bn1.weight": state["bn1.weight"] * 3e38})
    with pytest.raises(RunError, match="gives features that are not finite"):
        export_backbone(run.path)
    assert not (run.path / "exported.pth").exists()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="POSIX")
def test_a_device_is_written_without_a_comparison(runs, tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    reader = os.open(tmp_path / "pipe.pth", os.O_RDWR | os.O_NONBLOCK)
    try:
        monkey = pytest.MonkeyPatch()
        monkey.setattr("torch.save", lambda state, file: file.write(b"all"))
        said = export_backbone(runs("resnet"), "timm", tmp_path / "pipe.pth")
        assert os.read(reader, 9) == b"all"
    finally:
        monkey.undo()
        os.close(reader)
    assert "not compared with the run, as it cannot be read back" in said


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("full", "is a folder with other files"),
        ("file", "is a file, but this format is a folder"),
        ("downloaded", "is a folder with other files"),
        ("x.safetensors", "has the suffix of the format safetensors"),
        ("RUN", "is a folder with other files"),
        ("RUN/checkpoints", "belongs to the run"),
        ("RUN/recipe.yaml", "belongs to the run"),
    ],
)
def test_a_folder_of_others_is_not_replaced(out, words, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "downloaded").mkdir()  # a model of the hub
    (tmp_path / "downloaded/config.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=words):
        export_backbone(runs("resnet"), "huggingface", Path(out.replace("RUN", str(runs("resnet")))))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_earlier_folder_is_replaced_and_a_link_in_the_run_is_not_followed(runs, tmp_path):
    run, victim = runs("vit"), tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    out = run / NAMES["huggingface"]
    out.symlink_to(victim)
    export_backbone(run, "huggingface")
    assert not out.is_symlink()
    assert [path.name for path in victim.iterdir()] == ["precious"]
    (out / "config.json").write_text(json.dumps({"wildfern": {}}))
    export_backbone(run, "huggingface")
    assert "pretrained_cfg" in json.loads((out / "config.json").read_text())
    assert not list(run.glob(".partial_*"))


def test_every_format_has_a_default_name_and_suffixes():
    assert set(exporting.NAMES) == set(exporting.SUFFIXES) == set(exporting.FORMATS)
    for format, suffixes in exporting.SUFFIXES.items():
        assert Path(NAMES[format]).suffix == (suffixes or ("",))[0]
