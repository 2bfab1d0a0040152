"""A network of each kind of timm trains two steps, as recipes train it: autocast to bfloat16, channels last, the torch engine."""

import math

import pytest
import timm
import torch

from wildfern.ssl.methods import METHODS
from wildfern.ssl.methods.batch import Batch
from wildfern.ssl.models import Backbone
from wildfern.ssl.training.engine import TorchEngine
from wildfern.ssl.training.precision import strided_over_one_pixel

SIZED = {"img_size": 32}
FOUR, THREE = (1, 1, 1, 1), (1, 1, 1)  # blocks of each stage
# The smallest model of each module of timm, with less depth and width where it takes that, that trains on images of 32 px.
ALWAYS = {
    "test_byobnet": {}, "test_vit": {}, "test_convnext": {}, "test_mambaout": {}, "test_nfnet": {}, "test_resnet": {},
    "starnet_s050": {}, "test_coatnet": SIZED, "test_vit_relpos": SIZED, "pvt_v2_b0": {}, "levit_128s": SIZED,
    "edgenext_xx_small": {}, "ghostnet_050": {}, "lcnet_035": {}, "mobilevit_xxs": {}, "repghostnet_050": {},
}  # fmt: skip
SLOW: dict[str, dict] = {
    "beit_base_patch16_224": {"depth": 1, "embed_dim": 192, "num_heads": 3, **SIZED}, "cait_xxs24_224": {"depth": 2, **SIZED},
    "coat_tiny": {"serial_depths": FOUR, "parallel_depth": 1, **SIZED},
    "convit_tiny": {"depth": 2, "local_up_to_layer": 1, **SIZED}, "convmixer_768_32": {}, "cpubone_nano": {},
    "crossvit_tiny_240": {"embed_dim": (24, 48), "num_heads": (2, 2), "depth": ((1, 1, 0),) * 3}, "cs3darknet_focus_s": {},
    "cspnext_tiny": {}, "davit_tiny": {"depths": FOUR, "embed_dims": (24, 48, 96, 192), "num_heads": (1, 2, 4, 8)},
    "deit_tiny_patch16_224": {"depth": 2, **SIZED}, "densenet121": {"block_config": (2, 2, 2, 2)}, "dla46x_c": {},
    "dpn48b": {"k_sec": FOUR}, "mnasnet_small": {}, "efficientformerv2_s0": {"depths": FOUR, **SIZED}, "efficientvim_m1": {},
    "efficientvit_b0": {}, "efficientvit_m0": {}, "vit_tiny_patch16_dinov3_qkvb": {"depth": 2}, "fasternet_t0": {},
    "fastvit_t8": {"layers": FOUR}, "focalnet_tiny_srf": {}, "gcvit_xxtiny": SIZED, "hardcorenas_a": {}, "hgnetv2_b0": {},
    "hiera_tiny_224": {"stages": FOUR, **SIZED}, "sam2_hiera_tiny": {"stages": FOUR, "embed_dim": 24}, "hrnet_w18_small": {},
    "iformer_t": {}, "inception_next_atto": {}, "lcnetv2_small": {}, "lowformer_b0": {}, "gmlp_ti16_224": SIZED,
    "poolformerv2_s12": {}, "mvitv2_tiny": {}, "nest_tiny": SIZED, "nextvit_small": {}, "pit_ti_224": SIZED,
    "rdnet_tiny": {"num_blocks_list": (1,) * 7}, "regnetx_002": {}, "repvit_m1": {}, "res2next50": {"layers": FOUR},
    "resnest14d": {}, "resnetv2_18": {}, "rexnet_100": {}, "selecsls42": {}, "legacy_seresnet18": {"layers": FOUR},
    "shvit_s1": {}, "skresnet18": {"layers": FOUR}, "swiftformer_xs": {},
    "swin_tiny_patch4_window7_224": {"depths": FOUR, **SIZED}, "swinv2_tiny_window16_256": {"depths": FOUR, **SIZED},
    "swinv2_cr_tiny_224": {"depths": FOUR, **SIZED}, "tiny_vit_5m_224": {"depths": FOUR},
    "tnt_s_legacy_patch16_224": {"depth": 2, **SIZED}, "tresnet_m": {"layers": FOUR},
    "twins_svt_small": {"depths": FOUR, "embed_dims": (32, 64, 128, 256)}, "visformer_tiny": {"depth": THREE, **SIZED},
    "vit_tiny_r_s16_p8_224": SIZED, "vitamin_small_224": {"depth": 2, **SIZED}, "volo_d1_224": SIZED,
    "ese_vovnet19b_slim_dw": {}, "legacy_xception": {}, "xception41p": {}, "xcit_nano_12_p8_224": {"depth": 2},
}  # fmt: skip


def images(step: int) -> Batch:
    torch.manual_seed(step)
    numbers = torch.arange(2)
    return Batch([torch.randn(2, 2, 3, 32, 32)], None, [torch.zeros(2, 2, 5)], None, numbers * 0, 0, step, numbers)


@pytest.mark.parametrize("name", [*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_network_of_each_kind_trains_two_steps(name):
    torch.manual_seed(0)
    if name not in timm.list_models():
        pytest.skip(f"this version of timm has no {name}")
    backbone = Backbone(name, **{**ALWAYS, **SLOW}[name])
    method = METHODS["simclr"](backbone, 2, projection_hidden=8, projection_size=4)
    method.to(memory_format=torch.channels_last)
    # CaiT starts with layers scaled by 1e-5: in bfloat16 the class tokens of all images are equal.
    exact = name.startswith("cait") or strided_over_one_pixel(backbone, [32])
    engine = TorchEngine(
        method,
        lambda groups: torch.optim.SGD(groups, lr=1.0),
        0.0,
        device=torch.device("cpu"),
        precision="fp32" if exact else "bf16",
    )
    for step in range(2):
        output = engine(images(step))
        engine.backward(output.loss)
        reached = [p.grad is not None and bool(p.grad.any()) for p in backbone.parameters()]
        norm = engine.step(1e-3, 0.0)
        assert math.isfinite(output.loss.item())
        assert math.isfinite(norm)
    assert sum(reached) > len(reached) / 2
    assert output.features.shape == (2, backbone.width)
