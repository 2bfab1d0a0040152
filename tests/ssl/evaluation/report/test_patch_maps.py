"""PCA and attention maps: computed, stored in a run folder, read back, and shown in the report."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from wildfern.ssl.data import open_source
from wildfern.ssl.evaluation import KNN, Preprocessing, evaluate_backbones, report_page
from wildfern.ssl.evaluation.preprocessing import normalized
from wildfern.ssl.evaluation.report.image_details import (
    ImageDetails,
    PatchMaps,
    Thumbnails,
    details_path,
    read_details,
    write_details,
)
from wildfern.ssl.evaluation.report.patch_maps import patch_maps, principal_colors
from wildfern.ssl.evaluation.report.patch_maps_table import ATTENTION_WORDS, PCA_WORDS
from wildfern.ssl.evaluation.transformed import TransformedBackbone
from wildfern.ssl.models import Backbone

HOSTILE = "</script><script>alert(1)</script>\"'&"


def pixels(n: int = 3, height: int = 32, width: int = 32) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8))


def vit(**arguments) -> Backbone:
    torch.manual_seed(1)
    return Backbone("test_vit", **{"img_size": 32, "patch_size": 8, **arguments})


def resnet() -> Backbone:
    return Backbone("resnet18", stem="cifar", layers=[1, 1, 1, 1], channels=[4, 4, 4, 8], stem_width=4)


def test_colors_are_the_components_of_numpy_scaled_by_percentiles():
    rng = np.random.default_rng(0)
    grids = rng.gamma(1.0, size=(2, 4, 5, 7)) @ np.diag([5, 4, 3, 1, 1, 1, 1])
    rows = grids.reshape(40, 7)
    _, _, axes = np.linalg.svd(rows - rows.mean(0))
    found = principal_colors(torch.from_numpy(grids).float())
    assert (found.shape, found.dtype) == ((2, 4, 5, 3), np.uint8)
    for number in range(3):
        values = (rows - rows.mean(0)) @ axes[number]
        values = -values if sum(value**3 for value in values) < 0 else values
        low, high = np.percentile(values, 1), np.percentile(values, 99)
        expected = [round(255 * min(max((value - low) / (high - low), 0), 1)) for value in values]
        np.testing.assert_allclose(found[..., number].ravel(), expected, atol=1)


def test_colors_depend_neither_on_signs_nor_on_a_rotation_of_the_features():
    grids = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0)).exp() * torch.arange(1, 7)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    for other in (-grids @ -torch.eye(6), grids @ rotation, grids + 100):
        assert np.abs(principal_colors(other).astype(int) - principal_colors(grids)).max() <= 1


def test_what_does_not_vary_is_gray():
    same = torch.randn(5).expand(2, 4, 4, 5)
    assert (principal_colors(same) == 128).all()
    line = torch.arange(32.0).view(2, 4, 4, 1)  # one feature
    found = principal_colors(line)
    assert len(np.unique(found[..., 0])) > 20
    assert (found[..., 1:] == 128).all()


def test_maps_of_a_vision_transformer_are_those_of_its_tokens():
    backbone, settings = vit(num_heads=2), Preprocessing(size=32)
    backbone.train()
    backbone.network.blocks[1].eval()
    before = {name: module.training for name, module in backbone.named_modules()}
    components, attention = patch_maps(backbone, pixels(), settings)
    assert {name: module.training for name, module in backbone.named_modules()} == before
    images = torch.from_numpy(np.stack(pixels())).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        tokens = backbone.eval().tokens(normalized(images, settings.mean, settings.std)).patches
    np.testing.assert_array_equal(components, principal_colors(tokens.view(3, 4, 4, -1)))
    assert attention.shape == (3, 4, 4)
    assert attention.max((1, 2)).tolist() == [255] * 3


def test_wrapped_backbones_get_transformed_images():
    flip = nn.Module()
    flip.forward = lambda images: images.flip(3)
    wrapped = TransformedBackbone(nn.Identity(), TransformedBackbone(flip, vit()))
    expected = patch_maps(vit(), [one[:, ::-1] for one in pixels()], Preprocessing(size=32))
    for found, other in zip(patch_maps(wrapped, pixels(), Preprocessing(size=32)), expected, strict=True):
        np.testing.assert_array_equal(found, other)


def test_networks_without_tokens_have_maps_of_their_last_stage():
    backbone = resnet().eval()
    settings = Preprocessing(size=32)
    components, attention = patch_maps(backbone, pixels(), settings)
    assert attention is None
    images = torch.from_numpy(np.stack(pixels())).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        last = backbone.maps(normalized(images, settings.mean, settings.std))[-1]
    np.testing.assert_array_equal(components, principal_colors(last.permute(0, 2, 3, 1)))
    assert components.shape == (3, 4, 4, 3)
    assert patch_maps(backbone, pixels(), Preprocessing(size=24)) is None  # 3 × 3


def test_grids_of_images_that_are_not_square():
    backbone = vit(img_size=(32, 64))
    components, attention = patch_maps(backbone, pixels(2, 32, 64), Preprocessing())
    assert (components.shape, attention.shape) == ((2, 4, 8, 3), (2, 4, 8))


def test_other_networks_have_none():
    flat = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten())
    assert patch_maps(flat, pixels(), Preprocessing(size=32)) is None
    assert patch_maps(vit(class_token=False, global_pool="avg"), pixels(), Preprocessing(size=32))[1] is None
    broken = vit()
    broken.network.norm.weight.data.fill_(torch.nan)
    assert patch_maps(broken, pixels(), Preprocessing(size=32)) is None


def make(**changes) -> ImageDetails:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "jpeg")
    rng = np.random.default_rng(0)
    maps = PatchMaps(
        np.array([4, 1]),
        {name: rng.integers(0, 256, (2, 4, 6, 3), np.uint8) for name in ("random", "pretrained", HOSTILE)},
        {"pretrained": rng.integers(0, 256, (2, 4, 6), np.uint8)},
    )
    found = {"patch_maps": maps, "thumbnails": Thumbnails(np.arange(5), (content.getvalue(),) * 5), **changes}
    return ImageDetails("insects", np.arange(5) % 3, np.arange(5) * 10, ("ant", "bee", HOSTILE), **found)


@pytest.fixture
def folder(tmp_path):
    """A run with scores on insects."""
    row = {"dataset": "insects", "protocol": "knn", "metric": "accuracy", "value": 0.5}
    rows = [row | {"backbone": name} for name in ("random", "pretrained")]
    (tmp_path / "recipe.yaml").write_text("name: fern\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    return tmp_path


def test_an_evaluation_has_the_maps_of_the_first_queries():
    backbones = {"random": vit(), "pretrained": resnet()}
    sources = [open_source("digits", split) for split in ("train", "test")]
    result = evaluate_backbones(
        backbones, *sources, dataset="digits", evaluators={"knn": KNN()}, preprocessing=Preprocessing(size=32),
        details=True,
    )  # fmt: skip
    details = result.details["digits"]
    maps = details.patch_maps
    np.testing.assert_array_equal(maps.images, details.neighbors.queries[:8])
    assert list(maps.attention) == ["random"]
    shown = sources[1].read(details.items[maps.images]).as_lists().pixels
    for name, backbone in backbones.items():
        np.testing.assert_array_equal(maps.components[name], patch_maps(backbone, shown, Preprocessing(size=32))[0])


def test_maps_are_read_back(tmp_path):
    details = make()
    write_details(tmp_path, details)
    found = read_details(tmp_path, "insects").patch_maps
    np.testing.assert_array_equal(found.images, [4, 1])
    for kind in ("components", "attention"):
        expected = getattr(details.patch_maps, kind)
        assert list(getattr(found, kind)) == list(expected)
        for name, maps in expected.items():
            np.testing.assert_array_equal(getattr(found, kind)[name], maps)
    write_details(tmp_path, make(patch_maps=None))
    assert read_details(tmp_path, "insects").patch_maps is None


def test_maps_of_some_backbones():
    only = make().only(["random"]).patch_maps
    assert (list(only.components), list(only.attention)) == (["random"], [])


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("components.0", np.zeros((2, 4, 6, 4), np.uint8)),
        ("components.0", np.zeros((3, 4, 6, 3), np.uint8)),
        ("components.0", np.zeros((2, 4, 65, 3), np.uint8)),
        ("components.0", np.zeros((2, 0, 6, 3), np.uint8)),
        ("components.0", np.zeros((2, 4, 6, 3), np.float32)),
        ("attention.0", np.zeros((2, 4, 6, 3), np.uint8)),
        ("attention.0", None),
        ("images", np.array([4, 5])),
        ("images", np.array([[4], [1]])),
    ],
)
def test_damaged_maps_are_an_error_in_one_line(folder, name, array):
    path = write_details(folder, make())
    arrays = load_file(path)
    arrays.pop(f"patch_maps.{name}")
    if array is not None:
        arrays[f"patch_maps.{name}"] = array
    content = path.read_bytes()
    described = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    save_file(arrays, path, described)
    with pytest.raises(ValueError, match=f"{path.name} is damaged: .*patch_maps.{name}") as error:
        read_details(folder, "insects")
    assert "\n" not in str(error.value)
    assert f"{details_path(folder, 'insects').name} is damaged" in report_page([folder])


def tiles(page: str) -> dict[str, np.ndarray]:
    """The pixels of the PNG images, by their alternative text."""
    found = re.findall(r'<img alt="([^"]*)" title="[^"]*" src="data:image/png;base64,([^"]*)">', page)
    return {said: np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for said, png in found}


def test_the_page_has_a_block_of_columns_for_each_backbone(folder):
    write_details(folder, make())
    page = report_page([folder])
    assert "<h2>Feature maps of insects</h2>" in page
    heads = re.findall(r"<th class=first scope=colgroup colspan=(\d)>(.*?)</th>", page)
    assert [(count, name) for count, name in heads[::2]] == [("2", "pretrained"), ("1", "random")]  # the baseline last
    assert re.findall(r"scope=col>(\w+)<", page) == ["PCA", "attention", "PCA", "PCA"]
    maps = make().patch_maps
    shown = tiles(page)
    assert len(shown) == 8
    np.testing.assert_array_equal(shown["PCA of pretrained, test image 40: bee"], maps.components["pretrained"][0])
    np.testing.assert_array_equal(shown["attention of pretrained, test image 10: bee"], maps.attention["pretrained"][1])
    assert "<script>alert" not in page
    assert page.count(PCA_WORDS) == page.count(ATTENTION_WORDS) == 1
    assert report_page([folder, folder]).count(PCA_WORDS) == 1


@pytest.mark.parametrize(
    "changes",
    [{"patch_maps": None}, {"thumbnails": None}, {"patch_maps": PatchMaps(np.array([1]), {}, {})},
     {"patch_maps": replace(make().patch_maps, images=np.array([-1, -1]))}],
)  # fmt: skip
def test_there_is_no_section_without_maps_or_images(folder, changes):
    write_details(folder, make(**changes))
    page = report_page([folder])
    assert "Feature maps" not in page
    assert "is damaged" not in page


def test_without_attention_the_page_says_nothing_of_it(folder):
    write_details(folder, make(patch_maps=replace(make().patch_maps, attention={})))
    page = report_page([folder])
    assert PCA_WORDS in page
    assert ATTENTION_WORDS not in page
