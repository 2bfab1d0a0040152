"""Weights from files of other programs, run folders and tags."""

import argparse
import hashlib
import re
from collections import defaultdict, deque
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from forked_runs import RunsCode
from safetensors.torch import save_file

from wildfern.ssl.models import Backbone
from wildfern.ssl.models.checkpoint_file import read_tensors

NAME = "resnet10t"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return timm.create_model(NAME, num_classes=0).state_dict()


def loaded(path):
    return Backbone(NAME, weights=str(path)).network.state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"backbone.{k}": v for k, v in s.items()},
        lambda s: {"epoch": 3, "state_dict": {f"module.base.{k}": v for k, v in s.items()}},
        lambda s: {**s, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
        lambda s: {"model": {k: v for k, v in s.items()}},
    ],
    ids=["plain", "module", "backbone", "state_dict", "classifier", "model"],
)
def test_files_of_other_programs_are_read(change, state, tmp_path):
    torch.save(change(state), tmp_path / "weights.pth")
    assert equal(loaded(tmp_path / "weights.pth"), state)


def test_weights_of_a_related_architecture_are_named(tmp_path):
    small = {"img_size": 32, "depth": 2, "num_heads": 2, "embed_dim": 8}
    torch.save(
        timm.create_model("vit_tiny_patch16_224", init_values=0.1, **small).state_dict(), tmp_path / "scaled.pth"
    )
    message = Backbone("vit_tiny_patch16_224", weights=str(tmp_path / "scaled.pth"), **small).weights.message
    assert (
        "has 4 more weights inside its blocks, such as blocks.0.ls1.gamma, which vit_tiny_patch16_224 lacks" in message
    )
    torch.save(timm.create_model("vit_tiny_patch16_224", **small).state_dict(), tmp_path / "plain.pth")  # and a head
    assert "lacks" not in Backbone("vit_tiny_patch16_224", weights=str(tmp_path / "plain.pth"), **small).weights.message


def test_a_file_and_a_run_folder_and_their_checksum(state, tmp_path):
    save_file(state, tmp_path / "backbone.safetensors")
    expected = hashlib.sha256((tmp_path / "backbone.safetensors").read_bytes()).hexdigest()
    for source in (tmp_path, tmp_path / "backbone.safetensors"):
        backbone = Backbone(NAME, weights=str(source))
        assert equal(backbone.network.state_dict(), state)
        assert backbone.weights_sha256 == expected
    assert Backbone(NAME).weights_sha256 is None


def test_normalization_is_imagenets_unless_the_weights_have_another(tmp_path):
    name = "vit_tiny_patch16_224"  # timm's weights expect images of mean 0.5
    arguments = {"img_size": 32, "depth": 1, "num_heads": 2, "embed_dim": 8}
    fresh = Backbone(name, **arguments)
    assert fresh.mean == (0.485, 0.456, 0.406)
    save_file(fresh.network.state_dict(), tmp_path / "timm.safetensors")
    (tmp_path / "run").mkdir()
    save_file(fresh.network.state_dict(), tmp_path / "run" / "backbone.safetensors")
    assert Backbone(name, weights=str(tmp_path / "timm.safetensors"), **arguments).mean == (0.5, 0.5, 0.5)
    assert Backbone(name, weights=str(tmp_path / "run"), **arguments).mean == (0.485, 0.456, 0.406)


def test_what_was_read_and_what_is_not_used_is_said(state, tmp_path):
    torch.save({"state_dict": {**state, "decoder.weight": torch.zeros(2)}, "step": torch.ones(1)}, tmp_path / "w.pt")
    loaded = Backbone(NAME, weights=str(tmp_path / "w.pt")).weights
    assert re.fullmatch(
        r"model\.weights: \d+ weights of resnet10t from .*w\.pt, under state_dict; not used: "
        r"state_dict\.decoder\.weight, step",
        loaded.message,
    )
    assert loaded.as_json() == {
        "file": "w.pt",
        "sha256": hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest(),
        "prefix": "state_dict.",
        "not_used": "state_dict.decoder.weight, step",
    }


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def other(state):
    return {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}


# Layouts of training programs: prefix of the network that is chosen, and the file.
LAYOUTS = {
    "DDP": ("module.", lambda s: under("module.", s)),
    "torch.compile": ("_orig_mod.", lambda s: under("_orig_mod.", s)),
    "DDP and compile": ("state_dict.module._orig_mod.", lambda s: {"state_dict": under("module._orig_mod.", s)}),
    "Lightning": (
        "state_dict.backbone.",
        lambda s: {
            "epoch": 1, "hyper_parameters": argparse.Namespace(lr=0.1, out=Path("a")), "best": np.float64(0.5),
            "state_dict": under("backbone.", s) | under("projection_head.layers.0.", {"weight": torch.zeros(2)}),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        },
    ),
    "MoCo": (
        "state_dict.module.encoder_q.",
        lambda s: {
            "state_dict": under("module.encoder_q.", s) | under("module.encoder_k.", other(s)) | {"module.queue": torch.ones(2)}
        },
    ),
    "MoCo v3": (
        "state_dict.module.base_encoder.",
        lambda s: {"state_dict": under("module.momentum_encoder.", other(s)) | under("module.base_encoder.", s)},
    ),
    "DINO": (
        "teacher.backbone.",
        lambda s: {
            "student": under("module.backbone.", other(s)), "teacher": under("backbone.", s), "args": argparse.Namespace(a=1)
        },
    ),
    "EMA": ("state_dict_ema.", lambda s: {"state_dict": other(s), "state_dict_ema": s}),
    "model_ema": ("model_ema.module.", lambda s: {"model": other(s), "model_ema": under("module.", s)}),
    "nested": ("model.state_dict.network.encoder.", lambda s: {"model": {"state_dict": under("network.encoder.", s)}}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_network_is_found_in_files_of_training_programs(layout, state, tmp_path):
    prefix, make = LAYOUTS[layout]
    torch.save(make(state), tmp_path / "checkpoint.pth.tar")
    backbone = Backbone(NAME, weights=str(tmp_path / "checkpoint.pth.tar"))
    assert equal(backbone.network.state_dict(), state)
    assert backbone.weights.prefix == prefix


def test_of_several_networks_one_can_be_chosen(state, tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    torch.save({"student": under("module.backbone.", other(state)), "teacher": under("backbone.", state)}, path)
    message = Backbone(NAME, weights=str(path)).weights.message
    assert (
        "under teacher.backbone; the file also has this network under student.module.backbone (model.weights_key"
        in message
    )
    chosen = Backbone(NAME, weights=str(path), weights_key="student")
    assert equal(chosen.network.state_dict(), other(state))
    with pytest.raises(
        ValueError, match=r"no network under 'ema'; it has: teacher\.backbone, student\.module\.backbone"
    ):
        Backbone(NAME, weights=str(path), weights_key="ema")


def test_modules_wrapped_inside_a_network_are_found(state, tmp_path):
    inside = {re.sub(r"^(layer\d)\.", r"\1._orig_mod.", name): value for name, value in state.items()}
    torch.save(inside, tmp_path / "weights.bin")
    assert equal(loaded(tmp_path / "weights.bin"), state)


VIT = "vit_small_patch14_reg4_dinov2"
SMALL = {"depth": 4, "embed_dim": 16, "num_heads": 2, "patch_size": 4, "img_size": 16}


@pytest.mark.parametrize("chunked", [False, True])
def test_dinov2s_own_names_are_converted(chunked, tmp_path):
    """A class token with a position, register tokens, a mask token, blocks in chunks, and another image size."""
    torch.manual_seed(0)
    expected = {
        name: torch.randn_like(value)
        for name, value in timm.create_model(VIT, num_classes=0, **SMALL).state_dict().items()
    }
    file = dict(expected)
    file["register_tokens"] = file.pop("reg_token")
    place = torch.randn(1, 1, 16)
    file["cls_token"] = expected["cls_token"] - place
    file["pos_embed"] = torch.cat([place, expected["pos_embed"]], dim=1)
    file["mask_token"] = torch.zeros(1, 16)
    if chunked:
        file = {re.sub(r"^blocks\.(\d)\.", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}.", n): v for n, v in file.items()}
    head = under("dino_head.mlp.0.", {"weight": torch.zeros(4, 16)})
    torch.save({"teacher": under("backbone.", file) | head}, tmp_path / "teacher_checkpoint.pth")
    backbone = Backbone(VIT, weights=str(tmp_path / "teacher_checkpoint.pth"), **SMALL)
    found = backbone.network.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert "teacher.dino_head.mlp.0.weight" in backbone.weights.not_used
    larger = Backbone(VIT, weights=str(tmp_path / "teacher_checkpoint.pth"), **{**SMALL, "img_size": 24})
    resized = timm.layers.resample_abs_pos_embed(expected["pos_embed"], new_size=(6, 6), num_prefix_tokens=0)
    torch.testing.assert_close(larger.network.pos_embed.data, resized)
    assert "resized pos_embed [1, 17, 16] to [1, 36, 16]" in larger.weights.message


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_adapted_to_other_channels(channels, state, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    backbone = Backbone(NAME, weights=str(tmp_path / "weights.pth"), in_chans=channels)
    first = "conv1.0.weight"
    expected = timm.models.adapt_input_conv(channels, state[first])
    assert torch.equal(backbone.network.state_dict()[first], expected)
    assert f"resized {first}" in backbone.weights.message


def test_torchvisions_files_fit_torchvisions_and_timms_networks(tmp_path):
    from torchvision import models

    torch.manual_seed(0)
    file = models.resnet18(num_classes=5).state_dict()
    torch.save(file, tmp_path / "resnet18-f37072fd.pth")
    for name in ("resnet18", "torchvision/resnet18"):
        backbone = Backbone(name, weights=str(tmp_path / "resnet18-f37072fd.pth"))
        assert all(torch.equal(value, file[key]) for key, value in backbone.network.state_dict().items())
        assert backbone.weights.not_used == ("fc.weight", "fc.bias")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"layer1\.0\.conv1\.weight of its \d+ weights are missing"),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(1)}),
            r"layer1\.0\.conv1\.weight is \[1\] in the file, \[",
        ),
        (
            lambda s: [s.clear(), s.update(other=torch.zeros(1))],
            "none of the .* weights of resnet10t: .*; the file has other",
        ),
        (lambda s: s.update({"bn1.bias": torch.full_like(s["bn1.bias"], float("nan"))}), "bn1.bias in .* contains NaN"),
    ],
)
def test_what_does_not_fit_is_named(change, words, state, tmp_path):
    state = dict(state)
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=words):
        loaded(tmp_path / "weights.pt")


def test_a_file_that_contains_itself_ends_with_an_error(tmp_path):
    state = {}
    state["model"] = state
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="contains no tensors with names"):
        loaded(tmp_path / "weights.pt")


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_unreadable_files_are_refused_and_not_run(tmp_path):
    torch.save({"state_dict": Marker(tmp_path / "marker")}, tmp_path / "code.pth")
    torch.save({"state_dict": RunsCode(tmp_path / "marker")}, tmp_path / "blocked.pth")
    (tmp_path / "half.safetensors").write_bytes(b"\0" * 50)
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "weights.bin").write_bytes(b"")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "page.pth").write_text("<!doctype html>")
    np.savez(tmp_path / "arrays.npz", x=np.zeros(2))
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.pth")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "zip.pth").write_bytes((tmp_path / "list.pt").read_bytes().replace(b"PK\1\2", b"PK\1\3"))
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    for name, content in {"cut": old[:-30], "key": old.replace(b"cpu", b"cp\xff"), "start": b"\x80\x02X\1"}.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    (tmp_path / "struct.pth").write_bytes(old[: old.index(b"protocol_version")] + b"X\1")
    for name, words in {
        **{f"{name}.pth": "is damaged" for name in ("cut", "key", "start", "struct")},
        "zip.pth": "is damaged: Bad magic number for central directory",
        "code.pth": "no tensors with names",
        "blocked.pth": r"Python objects \(posix.mkdir\)",
        "half.safetensors": "damaged",
        "text.pt": "damaged",
        "weights.bin": "is empty",
        "pointer.pth": "a pointer of Git LFS",
        "page.pth": "a web page",
        "arrays.pth": "a NumPy archive",
        "list.pt": "no tensors with names",
        "none.pt": "there is no file",
        "no/folder": "there is no file",
        ".": "not a run folder",
    }.items():
        with pytest.raises(ValueError, match=words):
            loaded(tmp_path / name)
    assert not (tmp_path / "marker").exists()


def test_tensors_are_read_beside_objects_of_any_class_and_from_whole_networks(state, tmp_path):
    network = timm.create_model(NAME, num_classes=0)
    network.load_state_dict(state)
    counts = defaultdict(list)
    counts["a"].append(1)
    beside = {
        "args": argparse.Namespace(data=Path("images")),
        "time": datetime(2026, 1, 1),
        "counts": counts,
        "losses": deque([0.5]),
        "random": (np.arange(3), np.float64(0.5)),
        "function": torch.nn.functional.relu,
        "code": Marker(tmp_path / "marker"),
    }
    torch.save({"model": state} | beside, tmp_path / "settings.pth")
    torch.save(
        {"model": state, "time": datetime(2026, 1, 1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    torch.save({"model": torch.nn.DataParallel(network)} | beside, tmp_path / "whole.pth")
    for file in ("settings.pth", "old.pth", "whole.pth"):
        found = read_tensors(tmp_path / file)
        prefix = "model.module." if file == "whole.pth" else "model."
        for name, value in state.items():
            assert torch.equal(found[prefix + name], value), (file, name)
    assert not (tmp_path / "marker").exists()


def test_an_unknown_tag_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no pretrained tag a1_in22k; it has: timm \(the default\), c3_in1k"):
        Backbone(NAME, weights="a1_in22k")
    with pytest.raises(ValueError, match=r"it has: timm .*IMAGENET1K_V1"):
        Backbone("torchvision/resnet18", weights="V9")
    with pytest.raises(ValueError, match="small_alexnet has no pretrained weights"):
        Backbone("small_alexnet", weights="timm")


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network in this test")

    monkeypatch.setattr(
        timm, "create_model", lambda *a, pretrained=False, **k: refuse() if pretrained else MADE(*a, **k)
    )
    with pytest.raises(ValueError, match=r"resnet10t\.c3_in1k cannot be downloaded .*weights=PATH"):
        Backbone(NAME, weights="c3_in1k")


MADE = timm.create_model


def test_a_tag_loads_what_timm_loads(monkeypatch, state):
    """Everything except timm's download."""

    def pretrained(name, pretrained=False, **options):
        model = MADE(name.partition(".")[0], **options)
        if pretrained:
            assert name == "resnet10t.c3_in1k"
            model.load_state_dict(state)
        return model

    monkeypatch.setattr(timm, "create_model", pretrained)
    backbone = Backbone(NAME, weights="c3_in1k")
    assert equal(backbone.network.state_dict(), state)
    assert len(backbone.weights_sha256) == 64
    assert Backbone(NAME, weights="c3_in1k").weights_sha256 == backbone.weights_sha256
