"""`load_backbone`: the transform and timm's config of a run's backbone, and of networks by name."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_runs import TINY

import wildfern
from wildfern.launch.components import read_recipe
from wildfern.launch.evaluated import of_run
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.evaluation import extract_features

RGB: list[str] = []
ORDER = ["views.local_intensity_order=true", "model.arguments.in_chans=4"]
ONE = ["views.mean=[0.3]", "views.std=[0.2]", "model.arguments.in_chans=1"]


def begun(folder, changes):
    """A run folder with the weights at the start of training."""
    tiny = [change for change in TINY if not change.startswith(("model.arguments", "data."))]
    layers = ["model.arguments.layers=[1, 1, 1, 1]", "model.arguments.channels=[8, 8, 8, 8]"]
    run = RunFolder(folder)
    run.begin(read_recipe("quickstart", [*tiny, *layers, *changes]))
    run.write_backbone(run.backbone(trained=False).network.state_dict())
    return run


@pytest.mark.parametrize(("changes", "channels"), [(RGB, 3), (ORDER, 3), (ONE, 1)], ids=["rgb", "order", "one channel"])
def test_features_are_those_of_the_evaluation(changes, channels, tmp_path):
    if changes == ONE:
        source = tmp_path / "gray"
        source.mkdir()
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(source / "a.png")
        changes = [*ONE, f"data={{source: 'folder:{source}', bands: [1]}}"]
    run = begun(tmp_path / "run", changes)
    images = np.random.default_rng(0).integers(0, 256, (4, 50, 40, channels), np.uint8)
    model = of_run(run, run.recipe(), None, torch.device("cpu"))["pretrained"]
    settings = model.preprocessing
    expected = extract_features(
        model.backbone, [(images, None)], size=settings.size, mean=settings.mean, std=settings.std
    )
    backbone = wildfern.load_backbone(run.path)
    x = backbone.transform(images)
    config = timm.data.resolve_model_data_config(backbone.network)
    with torch.no_grad():
        assert torch.equal(backbone(x), expected.x)
    assert config["input_size"] == x.shape[1:]
    assert timm.data.resolve_model_data_config(backbone) == config
    assert (config["crop_pct"], config["interpolation"]) == (1.0, "bilinear")
    assert backbone.network.pretrained_cfg["num_classes"] == 0
    assert "url" not in backbone.network.pretrained_cfg
    if changes == RGB:
        assert (config["mean"], config["std"]) == (settings.mean, settings.std)


def test_timm_makes_the_same_square_images_within_a_gray_level(tmp_path):
    backbone = wildfern.load_backbone(begun(tmp_path / "run", RGB).path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone))(image)
    ours = backbone.transform(image)
    std = torch.tensor(backbone.pretrained_cfg["std"])[:, None, None]
    assert ((theirs - ours) * std * 255).abs().max() < 1


def test_a_network_by_name_has_its_own_size_and_interpolation():
    backbone = wildfern.load_backbone(("test_vit", None))
    config = timm.data.resolve_model_data_config(backbone)
    assert config["input_size"] == (3, backbone.size, backbone.size)
    assert config["interpolation"] == backbone.interpolation == "bicubic"
    assert backbone.transform(Image.new("L", (300, 200))).shape == (3, backbone.size, backbone.size)
    assert json.loads(json.dumps(config["mean"])) == list(backbone.mean)
