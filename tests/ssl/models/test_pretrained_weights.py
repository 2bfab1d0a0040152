"""Weights from files of other programs, run folders and tags."""

import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file

from wildfern.ssl.models import Backbone

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
@pytest.mark.filterwarnings("error::UserWarning")
def test_files_of_other_programs_are_read(change, state, tmp_path):
    torch.save(change(state), tmp_path / "weights.pth")
    assert equal(loaded(tmp_path / "weights.pth"), state)


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


def test_weights_that_are_not_used_are_listed(state, tmp_path):
    torch.save({**state, "decoder.weight": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.warns(UserWarning, match=r"decoder\.weight in .*weights.pt are not weights of resnet10t"):
        loaded(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"layer1\.0\.conv1\.weight of its \d+ weights are missing"),
        (lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(1)}), r"layer1\.0\.conv1\.weight in .* is \[1\], in"),
        (lambda s: s.update({f"teacher.{k}": v for k, v in s.items()}), "more than once, under '' and 'teacher.'"),
        (lambda s: [s.clear(), s.update(other=torch.zeros(1))], "are missing; the file has other"),
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
    with pytest.raises(ValueError, match="contains no named tensors"):
        loaded(tmp_path / "weights.pt")


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_unreadable_files_are_refused_and_not_run(tmp_path):
    torch.save({"state_dict": Marker(tmp_path / "marker")}, tmp_path / "code.pth")
    (tmp_path / "half.safetensors").write_bytes(b"\0" * 50)
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "weights.bin").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, words in {
        "code.pth": "Python objects",
        "half.safetensors": "damaged",
        "text.pt": "damaged",
        "weights.bin": "is not one of",
        "list.pt": "no named tensors",
        "none.pt": "there is no file",
        "no/folder": "there is no file",
        ".": "not a run folder",
    }.items():
        with pytest.raises(ValueError, match=words):
            loaded(tmp_path / name)
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
