"""Another backbone on the command line: arguments it does not take are dropped; vision transformers get the size of views."""

import pytest
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.backbone_arguments import backbone_takes
from wildfern.launch.backbones import initial_backbone
from wildfern.launch.builders import build_method, build_views, unseen_pixels
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.recipes import RecipeErrors

OTHERS = ["vit_tiny_patch16_224", "vgg11", "mobilenetv3_small_100", "dla46x_c", "small_alexnet", "efficientvit_m0"]


@pytest.mark.parametrize("name", OTHERS)
def test_the_quickstart_accepts_another_backbone(name):
    said = []
    recipe = read_recipe("quickstart", [f"model.backbone={name}"], announce=said.append)
    names = ("layers", "channels", "stem_width", "zero_init_last")
    dropped = ", ".join(f"model.arguments.{key}" for key in names)
    assert said[0] == f"model.backbone is now {name}: dropped {dropped} of resnet18"
    assert set(recipe.model.arguments) <= {"img_size", "image_size"}
    assert initial_backbone(recipe).width > 0


def test_a_resnet_keeps_what_it_takes():
    recipe = read_recipe("simclr_cifar10", ["model.backbone=resnet50", "model.arguments.zero_init_last=false"])
    assert (recipe.model.stem, recipe.model.arguments) == ("cifar", {"zero_init_last": False})
    assert read_recipe("simclr_cifar10", ["model.backbone=vgg11"], announce=list).model.stem == "standard"
    assert backbone_takes("torchvision/resnet50", "stem")
    assert backbone_takes("torchvision/resnet50", "zero_init_residual")
    assert not backbone_takes("torchvision/resnet50", "layers")  # its builder passes them
    assert backbone_takes("torchvision/vgg11", "dropout")
    assert not backbone_takes("torchvision/vgg11", "stem")
    assert not backbone_takes("torchvision/no_such_network", "stem")
    assert not backbone_takes("no_such_network", "layers")
    assert backbone_takes("dla34", "channels")
    assert not backbone_takes("dla34", "channels", "resnet18")  # six stages instead of four
    assert backbone_takes("resnet50", "channels", "resnet18")


def test_a_vision_transformer_gets_the_size_of_the_views():
    def arguments(*overrides):
        said = []
        recipe = read_recipe("quickstart", ["model.backbone=vit_tiny_patch16_224", *overrides], announce=said.append)
        return recipe.model.arguments, said[1:]

    message = "set model.arguments.img_size to 48: views have 48 px, vit_tiny_patch16_224 is made for 224 px"
    assert arguments() == ({"img_size": 48}, [message])
    assert arguments("views.size=224") == ({}, [])
    assert arguments("model.arguments.img_size=64") == ({"img_size": 64}, [])
    assert arguments("model.arguments.dynamic_img_size=true") == ({"dynamic_img_size": True}, [])
    several, said = arguments("views={name: multicrop, size: 64, local_size: 32}")
    assert several == {"img_size": 64, "dynamic_img_size": True}
    assert "model.arguments.dynamic_img_size to true: views have 32, 64 px" in said[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deit_tiny_distilled_patch16_224", {"img_size": 32}),  # whose own constructor only passes arguments on
        ("torchvision/vit_b_32", {"image_size": 32}),
        ("torchvision/swin_t", {}),
        ("small_alexnet", {}),
    ],
)
def test_transformers_of_any_kind_get_the_size_of_the_views(name, expected):
    recipe = read_recipe("quickstart", [f"model.backbone={name}", "views.size=32"], announce=list)
    assert recipe.model.arguments == expected


def test_pixels_beside_whole_patches_are_said():
    changes = ["model.backbone=vit_small_patch14_dinov2", "model.arguments={depth: 1, embed_dim: 8, num_heads: 1}"]
    for size, said in ((28, []), (32, ["it does not see the last 4 of 32 px on the right and below; views of 28 px"])):
        recipe = read_recipe("quickstart", [*changes, f"views.size={size}"], announce=list)
        found = unseen_pixels(build_method(recipe), build_views(recipe))
        assert len(found) == len(said)
        assert all(words in message for words, message in zip(said, found, strict=True))


def test_sizes_that_a_network_does_not_take_are_refused_with_what_to_write(tmp_path):
    changes = [change for change in TINY if not change.startswith(("model.", "method.", "views."))]
    dino = ["method={name: dino, prototypes: 8, head_hidden: 8, head_bottleneck: 8}", "training.steps=1"]
    dino += ["views={name: multicrop, size: 32, local_size: 16}", "model={backbone: small_alexnet, arguments: {}}"]
    with pytest.raises(RunError, match=r"does not take views of 16, 32 px: .*one size only views\.local_size=32$"):
        pretrain("quickstart", [*changes, *dino], run=tmp_path / "run")


def test_the_quickstart_trains_a_vision_transformer(tmp_path):
    changes = [change for change in TINY if not change.startswith("model.")]
    changes += ["model.backbone=vit_tiny_patch16_224", "model.arguments.depth=1", "training.steps=1"]
    run = pretrain("quickstart", changes, run=tmp_path / "run")
    assert "img_size: 32" in (run / "recipe.yaml").read_text()


@pytest.mark.parametrize("key", ["pretrained=true", "checkpoint_path=x.pth", "pretrained_cfg_overlay={file: x.pth}"])
def test_arguments_that_would_load_weights_are_refused(key):
    with pytest.raises(
        RecipeErrors, match=r"model\.arguments\.\w+: set model\.weights: timm \(or timm:TAG, or a path\)"
    ):
        read_recipe("quickstart", [f"model.arguments.{key}"])
