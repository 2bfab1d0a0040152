"""A ResNet, DenseNet or vision transformer of timm as torchvision's network of the same architecture."""

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from wildfern.launch.backbones import recipe_backbone
from wildfern.launch.errors import RunError
from wildfern.launch.export_network import ExportNetwork
from wildfern.recipes import Recipe
from wildfern.ssl.models.networks import TORCHVISION

# timm's and torchvision's networks of these names have the same weights under the same names, but for the classifier.
SAME_NAMES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
)
TRANSFORMERS = {
    "vit_base_patch16": "vit_b_16",
    "vit_base_patch32": "vit_b_32",
    "vit_large_patch16": "vit_l_16",
    "vit_large_patch32": "vit_l_32",
    "vit_huge_patch14": "vit_h_14",
    "deit_base_patch16": "vit_b_16",
}
# Weights of a vision transformer, without `.weight` and `.bias`: timm's names and torchvision's.
OF_A_TRANSFORMER = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj": "conv_proj",
    "norm": "encoder.ln",
}
OF_A_BLOCK = {
    "norm1": "ln_1",
    "attn.qkv": "self_attention.in_proj",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
OTHERS = "choose another --format: timm, safetensors, huggingface, onnx and torch_export take every network"


def as_torchvision(source: ExportNetwork) -> ExportNetwork:
    """The same weights in torchvision's network, with a recipe that builds that one.

    Raises RunError for networks that torchvision does not have, and for arguments that it does not take.
    """
    model = source.recipe.model
    if model.backbone.startswith(TORCHVISION):
        return source
    name = model.backbone.partition(".")[0]
    transformer = TRANSFORMERS.get(re.sub(r"_\d+$", "", name))
    if name not in SAME_NAMES and transformer is None:
        known = ", ".join((*SAME_NAMES, *(f"{one}_…" for one in TRANSFORMERS)))
        raise RunError(f"torchvision does not have the network {model.backbone}, only {known}; {OTHERS}")
    arguments = {} if transformer is None else {"image_size": source.input_size[1]}
    recipe = _with_network(source.recipe, TORCHVISION + (transformer or name), arguments)
    state = source.state() if transformer is None else dict(transformer_weights(source.state()))
    try:
        converted = replace(source, recipe=recipe, network=recipe_backbone(recipe).network.eval())
        converted.network.load_state_dict(state)
    except (ValueError, RuntimeError) as error:  # torch lists what does not fit, one a line
        reason = (str(error).splitlines() or [""])[-1].strip()
        raise RunError(
            f"{model.backbone} with model.arguments {model.arguments} is not torchvision's {transformer or name} ({reason}); "
            f"{OTHERS}"
        ) from error
    return converted


def transformer_weights(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Weights of timm's vision transformer under torchvision's names; others keep theirs, and fit no network."""
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
        if name in OF_A_TRANSFORMER:
            yield OF_A_TRANSFORMER[name], tensor
        elif module in OF_A_TRANSFORMER:
            yield f"{OF_A_TRANSFORMER[module]}.{kind}", tensor
        elif block and block[2] in OF_A_BLOCK:
            joint = "_" if block[2] == "attn.qkv" else "."  # in_proj_weight
            yield f"encoder.layers.encoder_layer_{block[1]}.{OF_A_BLOCK[block[2]]}{joint}{kind}", tensor
        else:
            yield name, tensor


def _with_network(recipe: Recipe, name: str, arguments: dict[str, int]) -> Recipe:
    model = recipe.model.model_copy(update={"backbone": name, "arguments": arguments})
    return recipe.model_copy(update={"model": model})
