"""Training states: writing and loading, and errors for files that do not fit."""

import os
import pickle
import re

import pytest
import torch
from engine_ranks import advance, build
from safetensors.torch import load_file, save_file

from wildfern.ssl.methods import DINO, Batch
from wildfern.ssl.models import Backbone
from wildfern.ssl.training import OPTIMIZERS, TorchEngine
from wildfern.ssl.training.whole_state import FILE, write

CASES = ["simclr-sgd", "dino-adamw", "cacr_momentum-lars", "simclr-lamb", "simclr-bf16", "simclr-counting"]


@pytest.mark.parametrize("case", CASES)
def test_an_engine_resumes_bit_exactly(case, tmp_path):
    engine = build(case, None)
    advance(engine, case, 0, 3)
    snapshot = engine.snapshot()
    write(snapshot, tmp_path)
    expected = advance(engine, case, 3, 6)
    other = build(case, None)
    other.load(tmp_path)
    again = other.snapshot()
    assert snapshot.keys() == again.keys()
    assert all(torch.equal(snapshot[name], again[name]) for name in snapshot)
    assert torch.equal(advance(other, case, 3, 6), expected)


def test_a_snapshot_is_a_copy_and_complete(tmp_path):
    engine = build("dino-adamw", None)
    advance(engine, "dino-adamw", 0, 2)
    snapshot = engine.snapshot()
    before = {name: value.clone() for name, value in snapshot.items()}
    advance(engine, "dino-adamw", 2, 4)
    assert all(torch.equal(before[name], snapshot[name]) for name in before)
    trained = [name for name, p in engine.method.named_parameters() if p.requires_grad]
    expected = {f"optimizer/{name}/{key}" for name in trained for key in ("step", "exp_avg", "exp_avg_sq")}
    expected |= {f"method/{name}" for name in engine.method.state_dict()}
    expected |= {f"teacher/teacher/{name}" for name in engine.method.teachers()["teacher"].state_dict()}
    more = tuple(name for name in snapshot if name not in expected)
    assert all(name.startswith(("probe/", "optimizer_groups/")) for name in more)
    assert expected <= snapshot.keys()
    assert "probe/weight" in snapshot


def test_the_file_has_the_read_permissions_of_the_folder(tmp_path):
    tmp_path.chmod(0o750)
    write({"method/weight": torch.zeros(2)}, tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o640


def test_optimizer_state_has_the_memory_layout_of_its_weight(tmp_path):
    case = "dino-adamw"
    engine = build(case, None)
    advance(engine, case, 0, 2)
    write(engine.snapshot(), tmp_path)
    other = build(case, None)
    other.method.to(memory_format=torch.channels_last)
    other.load(tmp_path)
    weight = other.method.backbone.convolution.weight
    assert not weight.is_contiguous()
    assert other.optimizer.state[weight]["exp_avg"].stride() == weight.stride()
    assert torch.equal(weight, engine.method.backbone.convolution.weight)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: s.pop("method/idle.bias"), "method/idle.bias is missing"),
        (lambda s: s.update({"method/idle.bias": torch.zeros(4)}), "method/idle.bias is [4], not [3]"),
        (lambda s: s.update({"method/more": torch.zeros(4)}), "unexpected weight method/more in the checkpoint"),
        (lambda s: s.pop("teacher/teacher/0.norm.weight"), "teacher/teacher/0.norm.weight is missing"),
        (lambda s: s.update({"optimizer/idle.bias/exp_avg": torch.zeros(4)}), "exp_avg is [4], not [3]"),
        (
            lambda s: s.update({"method/idle.bias": s["method/idle.bias"].double()}),
            "method/idle.bias is float64, not float32",
        ),
        (
            lambda s: s.update({"method/idle.bias": s["method/idle.bias"].char()}),
            "method/idle.bias is int8, not float32",
        ),
        (lambda s: s.update({"method/idle.bias": torch.zeros(3, dtype=torch.float8_e5m2)}), "is F8_E5M2, not float32"),
        (lambda s: s.update({"teacher/teacher/more": torch.zeros(3)}), "unexpected weight teacher/teacher/more"),
        (
            lambda s: s.update({"teacher/other/0.norm.weight": torch.zeros(3)}),
            "unexpected weight teacher/other/0.norm.weight",
        ),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("teacher/")], "is missing"),
        (
            lambda s: s.update({"teacher/teacher/0.norm.weight": s["teacher/teacher/0.norm.weight"].half()}),
            "is float16, not",
        ),
        (lambda s: s.update({"more": torch.zeros(3)}), "unexpected weight more"),
        (lambda s: s.update({"probe/weight": s["probe/weight"].double()}), "probe/weight is float64, not float32"),
        (lambda s: s.pop("probe/weight"), "probe/weight is missing"),
        (
            lambda s: s.update({"optimizer/idle.bias/exp_avg": torch.zeros(3).double()}),
            "exp_avg is float64, not float32",
        ),
        (lambda s: s.pop("optimizer/idle.bias/exp_avg"), "optimizer/idle.bias/exp_avg is missing"),
        (lambda s: [s.pop(f"optimizer/idle.bias/{key}") for key in ("step", "exp_avg", "exp_avg_sq")], "is missing"),
        (lambda s: s.update({"optimizer/other/exp_avg": torch.zeros(3)}), "unexpected optimizer/other/exp_avg"),
        (
            lambda s: s.update({"optimizer/idle.bias/step": torch.tensor(float("nan"))}),
            "step is nan, not a number of steps",
        ),
        (
            lambda s: s.update({"optimizer/idle.bias/step": torch.tensor(float("inf"))}),
            "step is inf, not a number of steps",
        ),
        (lambda s: s.update({"optimizer/idle.bias/step": torch.tensor(-1.0)}), "step is -1, not a number of steps"),
        (lambda s: s.update({"optimizer/idle.bias/step": torch.tensor(0.5)}), "step is 0.5, not a number of steps"),
        (lambda s: s.update({"optimizer/idle.bias/step": torch.zeros(3)}), "optimizer/idle.bias/step is [3], not []"),
        (
            lambda s: s.update({"optimizer_groups/0/params": torch.tensor([5])}),
            "optimizer_groups/0/params is not a number",
        ),
        (
            lambda s: s.update({"optimizer_groups/0/betas": torch.tensor([5.0])}),
            "optimizer_groups/0/betas is not a number",
        ),
        (
            lambda s: s.update({"optimizer_groups/²/eps": torch.tensor([5.0])}),
            "of a parameter group that this optimizer does not",
        ),
        (
            lambda s: s.update({"optimizer_groups/99/eps": torch.tensor([5.0])}),
            "of a parameter group that this optimizer does not",
        ),
        (lambda s: s.update({"optimizer_groups/0/eps": torch.tensor([float("nan")])}), "optimizer_groups/0/eps is NaN"),
        (
            lambda s: s.update({"optimizer_groups/0/eps": torch.zeros(2)}),
            "optimizer_groups/0/eps is [2] of F32, not a number",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, what, tmp_path):
    engine = build("dino-adamw", None)
    advance(engine, "dino-adamw", 0, 1)
    write(engine.snapshot(), tmp_path)
    state = load_file(tmp_path / FILE)
    change(state)
    save_file(state, tmp_path / FILE)
    other = build("dino-adamw", None)
    before = other.snapshot()
    with pytest.raises(ValueError, match=f"does not fit this recipe: .*{re.escape(what)}"):
        other.load(tmp_path)
    after = other.snapshot()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_files_with_earlier_names_are_read(tmp_path):
    """Earlier names of backbone weights lacked the level `network`."""
    engine, other = (method_on_a_backbone() for _ in range(2))
    views = torch.randn(2, 4, 3, 16, 16)
    for step in range(2):
        engine.backward(engine(Batch.from_views([views], step=step)).loss)
        engine.step(0.1, 0.0)
        engine.method.after_step(step)
    state = engine.snapshot()
    old = {name.replace("backbone.network.", "backbone.").replace("/0.network.", "/0."): v for name, v in state.items()}
    assert len(old.keys() - state.keys()) > 100
    assert "teacher/teacher/0.conv1.0.weight" in old
    write(old, tmp_path)
    other.load(tmp_path)
    assert all(torch.equal(value, state[name]) for name, value in other.snapshot().items())


def method_on_a_backbone():
    torch.manual_seed(0)
    method = DINO(Backbone("resnet10t", layers=[1, 1, 1, 1], channels=[8, 8, 8, 8], stem_width=8), 10, prototypes=8)
    device = torch.device("cpu")
    return TorchEngine(method, lambda g: OPTIMIZERS["sgd"](g, learning_rate=0.1), 0.0, device=device, precision="fp32")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_what_is_no_regular_file_is_refused(tmp_path):
    engine = build("simclr-sgd", None)
    for plant, what in ((os.mkfifo, "a FIFO"), (lambda path: path.symlink_to("/dev/zero"), "a symbolic link")):
        plant(tmp_path / FILE)
        with pytest.raises(ValueError, match=f"{FILE} is {what}"):
            engine.load(tmp_path)
        (tmp_path / FILE).unlink()


HEADER = b'{"method/idle.bias":{"dtype":"F32","shape":[3],"data_offsets":[%d,%d]}}'


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little"),
        (2**40).to_bytes(8, "little") + b"{}",
        len(HEADER % (0, 12)).to_bytes(8, "little") + HEADER % (0, 12),  # without the data
        len(HEADER % (8, 20)).to_bytes(8, "little") + HEADER % (8, 20) + b"\0" * 20,
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_a_header_that_is_wrong_is_refused(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        build("simclr-sgd", None).load(tmp_path)


class Marker:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_files_with_code_are_refused_and_not_run(tmp_path):
    engine, marker = build("simclr-sgd", None), tmp_path / "marker"
    for content in (pickle.dumps(Marker(marker)), b"\0" * 100, b""):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            engine.load(tmp_path)
    torch.save({"method": Marker(marker)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="is damaged"):
        engine.load(tmp_path)
    assert not marker.exists()
    (tmp_path / FILE).unlink()
    with pytest.raises(ValueError, match="holds no training"):
        engine.load(tmp_path)
