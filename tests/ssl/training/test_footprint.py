"""The dry run against real steps: allocations in torch's profiler, tensors saved for backward, formulas."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

from wildfern.ssl.methods import DINO, Batch, ComparingMethod, Embedded, Method, Output, SimCLR
from wildfern.ssl.methods.gather import all_gather_embeddings
from wildfern.ssl.models import Backbone, sharded_module
from wildfern.ssl.training import OPTIMIZERS, TorchEngine
from wildfern.ssl.training.footprint import optimizer_state, step_footprint
from wildfern.ssl.training.measured_peak import measured_peak
from wildfern.ssl.training.precision import computes_in_bf16

VIT = {"img_size": 32, "patch_size": 4, "depth": 3, "embed_dim": 96, "num_heads": 3, "dynamic_img_size": True}
ADAMW = partial(OPTIMIZERS["adamw"], learning_rate=1e-3)
IMAGES = 32


def resnet() -> nn.Module:
    return Backbone("resnet18", stem="cifar", layers=[1, 1, 1, 1], channels=[16, 32, 64, 128])


def vit() -> nn.Module:
    return Backbone("vit_tiny_patch16_224", **VIT)


def recomputed(backbone: Backbone) -> Backbone:
    backbone.checkpoint_activations()
    return backbone


CASES = {
    "resnet": (lambda: SimCLR(resnet(), 10, projection_hidden=128), [(2, 32)]),
    "vit": (lambda: SimCLR(vit(), 10, projection_hidden=128), [(2, 32)]),
    "dino": (lambda: DINO(vit(), 10, prototypes=1024, head_hidden=128, head_bottleneck=32), [(2, 32), (4, 16)]),
}
RECOMPUTED = {
    "resnet recomputed": (lambda: SimCLR(recomputed(resnet()), 10, projection_hidden=128), [(2, 32)]),
    "vit recomputed": (lambda: SimCLR(recomputed(vit()), 10, projection_hidden=128), [(2, 32)]),
}
each_case = pytest.mark.parametrize("case", CASES)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
each_precision = pytest.mark.parametrize("precision", ["fp32", "bf16"])
NO_BF16 = "this processor has no bfloat16 arithmetic: torch emulates it with larger buffers"


def footprint(case, precision, **options):
    make, shape = (CASES | RECOMPUTED)[case]
    with torch.device("meta"):
        method = make()
    return step_footprint(method, ADAMW, shape, IMAGES, precision=precision, view_dtype=DTYPES[precision], **options)


@pytest.mark.parametrize("case", [*CASES, *RECOMPUTED])
@each_precision
def test_the_estimate_is_within_a_tenth_of_the_measured_peak(case, precision):
    if precision == "bf16" and not computes_in_bf16(torch.device("cpu")):
        pytest.skip(NO_BF16)
    make, shape = (CASES | RECOMPUTED)[case]
    foot = footprint(case, precision)
    engine = TorchEngine(make(), ADAMW, 0.0, device=torch.device("cpu"), precision=precision)
    measured = measured_peak(engine, shape, IMAGES, view_dtype=DTYPES[precision])
    assert foot.weights + foot.teachers + foot.optimizer + foot.views + foot.peak == pytest.approx(measured, rel=0.1)


@each_case
@each_precision
def test_saved_bytes_are_those_that_autograd_saves(case, precision):
    make, shape = CASES[case]
    method = make()
    views = [torch.randn(count, IMAGES, 3, size, size, dtype=DTYPES[precision]) for count, size in shape]
    known = {t.untyped_storage().data_ptr() for t in (*method.parameters(), *method.buffers(), *views)}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept alive, so that its address is not reused
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        loss = method(Batch.from_views(views, step=5)).loss
    assert loss.isfinite()
    assert footprint(case, precision).saved == pytest.approx(sum(size for size, _ in saved.values()), rel=0.1)


def test_checkpointing_keeps_fewer_activations_for_another_forward_pass():
    for case, kept in (("vit", 0.2), ("resnet", 0.7)):
        plain, again = footprint(case, "fp32"), footprint(f"{case} recomputed", "fp32")
        assert again.saved < kept * plain.saved
        assert again.peak < plain.peak
        # Of three parts, of which one is the forward pass; the last layer of a block need not be computed again.
        assert 1.1 < again.flops / plain.flops < 4 / 3
        assert (plain.forward_passes, again.forward_passes) == (1, 2)


def test_teachers_are_told_apart_and_their_units_are_those_that_are_gathered(monkeypatch):
    monkeypatch.setattr(sharded_module, "KEPT_WHOLE", 1000)
    make, shape = CASES["dino"]
    method = make()
    [teacher] = method.teachers().values()
    large = [weight.numel() * 4 for weight in teacher.parameters() if weight.numel() > 1000]
    whole = sum(t.numel() * 4 for t in teacher.state_dict().values())
    with torch.device("meta"):
        method = make()
        method.add_frozen_teacher("frozen", resnet())
    foot = step_footprint(method, ADAMW, shape, 2, precision="fp32")
    frozen = method.frozen_teachers()["frozen"].module
    assert (foot.teacher_weights, foot.teachers) == (sum(large), whole)
    assert foot.teacher_unit == max(large)  # no module has two large ones
    assert foot.frozen_teachers == sum(t.numel() * t.element_size() for t in frozen.state_dict().values())


class Perceptron(Method):
    """3·8·8 → 16 → 4 and the mean square over all ranks: small enough to count by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, batch):
        z = torch.stack([self.net(view) for view in batch.views[0]])
        return Output(all_gather_embeddings(z).square().mean())


def perceptron(world_size):
    with torch.device("meta"):
        method = Perceptron()
    return step_footprint(method, ADAMW, [(2, 8)], 5, precision="fp32", world_size=world_size)


def test_flops_and_sizes_of_a_perceptron_by_hand():
    foot = perceptron(1)
    rows = 2 * 5
    # Forward pass, gradients of both weights and of the hidden layer; none of the images.
    assert foot.flops == 2 * rows * (2 * (192 * 16 + 16 * 4) + 16 * 4)
    assert foot.parameters == 192 * 16 + 16 + 16 * 4 + 4
    assert foot.weights == foot.gradients == 4 * foot.parameters
    assert foot.views == 4 * rows * 192
    assert (foot.teachers, foot.sent) == (0, 0)


@pytest.mark.parametrize("world_size", [2, 4])
def test_traffic_of_gathered_embeddings_by_hand(world_size):
    mine = 4 * (2 * 5 * 4)
    # Forward: each rank forwards W - 1 parts. Backward: each rank sends all parts but its own.
    assert perceptron(world_size).sent == 2 * (world_size - 1) * mine
    assert not torch.distributed.is_initialized()


def test_batch_norm_over_ranks_sends_sums_and_keeps_more():
    alone, together = footprint("resnet", "bf16"), footprint("resnet", "bf16", world_size=2)
    assert together.sent > 0
    assert together.saved > alone.saved  # centered activations in float32


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_is_that_of_a_real_step(name):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 1))
    make = partial(OPTIMIZERS[name], learning_rate=0.1)
    optimizer = make([{"params": list(net.parameters()), "weight_decay": 0.1, "decays": True}])
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert optimizer_state(net, make) == sum(v.numel() * v.element_size() for v in state) > 0


def test_a_method_that_reads_values_is_refused():
    class Looks(Perceptron):
        def forward(self, batch):
            loss = super().forward(batch).loss
            return Output(loss * loss.item())

    with torch.device("meta"):
        method = Looks()
    with pytest.raises(RuntimeError):
        step_footprint(method, ADAMW, [(2, 8)], 5, precision="fp32")


def test_no_warning_reaches_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perceptron(2)


class Comparing(ComparingMethod):
    """The same network, and the mean square of all products of embeddings of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Perceptron().net

    def embed(self, batch):
        return Embedded({"z": torch.stack([self.net(view) for view in batch.views[0]])})

    def compare(self, embeddings, step):
        z = embeddings["z"].flatten(0, 1)
        return Output((z @ z.T).square().mean())


def test_a_shared_loss_takes_another_forward_pass_and_the_memory_of_the_whole_batch():
    def foot(parts):
        with torch.device("meta"):
            method = Comparing()
        return step_footprint(method, ADAMW, [(2, 8)], 5, precision="fp32", world_size=2, parts=parts)

    one, many = foot(1), foot(64)
    rows, together = 2 * 5, 2 * 5 * 2 * 64
    assert many.flops - one.flops == 2 * rows * (192 * 16 + 16 * 4)
    assert (one.forward_passes, many.forward_passes) == (1, 2)
    assert many.sent == one.sent  # no batch statistics
    assert 2 * 4 * together**2 <= many.peak < 6 * 4 * together**2
    assert one.peak < 4 * together**2


def test_weights_that_are_only_viewed_are_no_activations():
    """A linear layer transposes its weight; batch, outputs of ReLU and the last output are all that autograd saves."""
    width, rows = 1024, 2 * 4
    with torch.device("meta"):
        method = Comparing()
        method.net = nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.ReLU(), nn.Linear(width, width))
    method.forward = lambda batch: Output(method.net(batch.views[0].flatten(0, 1)).square().mean())
    foot = step_footprint(method, ADAMW, [(2, 8)], 4, precision="fp32")
    images, outputs, loss = rows * 192 * 4, 2 * rows * width * 4, 4
    assert foot.saved == images + outputs + loss
    assert foot.gradients <= foot.peak < foot.gradients + foot.saved
