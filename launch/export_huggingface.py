"""Export as a folder of the Hugging Face hub: for `timm.create_model("local-dir:…")` and transformers' `from_pretrained`.

A network that timm makes from its name and arguments is written as timm's own `save_for_hf` writes it, which transformers reads
as a `TimmWrapperModel`. For other networks (another stem, torchvision's) the folder has the code that builds them as well, which
transformers runs with `trust_remote_code=True`.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from wildfern.bounded_json import read_json
from wildfern.files import replacing, write_text
from wildfern.launch.export_code import indented, made_by_timm, network_code
from wildfern.launch.export_folder import CONFIG, MARK, MOST_CONFIG
from wildfern.launch.export_network import ExportNetwork
from wildfern.ssl.models.networks import build_network

WEIGHTS = "model.safetensors"
PROCESSOR = "preprocessor_config.json"
CODE = "modeling_backbone.py"
PREFIX = "network."  # of the weights in a folder with code
RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers

MODELING = '''"""The network of this folder for transformers, written by wildfern."""

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class BackboneConfig(PretrainedConfig):
    model_type = "wildfern_backbone"


class BackboneModel(PreTrainedModel):
    """Images float32[N, C, S, S] -> `pooler_output` float32[N, width]."""

    config_class = BackboneConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        with torch.device("cpu"):
            self.network = build()
        self.post_init()

    def _init_weights(self, module):
        """All weights are in model.safetensors."""

    def forward(self, pixel_values, return_dict=True, **unused):
        features = self.network(pixel_values.to(self.device, self.dtype))
        return BaseModelOutputWithPooling(pooler_output=features) if return_dict else (features,)


def build():
{lines}
    return model
'''


def write_folder(source: ExportNetwork, folder: Path) -> None:
    """Write weights, configuration and, where it is needed, code into a new folder."""
    by_timm = made_by_timm(source.recipe, source.network)
    state = source.state() if by_timm else {PREFIX + name: tensor for name, tensor in source.state().items()}
    with replacing(folder / WEIGHTS) as path:
        save_file(state, path, {"format": "pt", **source.metadata})
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors writes files that only their owner can read
    _write_json(folder / CONFIG, timm_config(source) if by_timm else code_config(source))
    if source.input_size[0] == 3:
        _write_json(folder / PROCESSOR, processor_config(source.images))
    if not by_timm:
        lines = indented(network_code(source.recipe, source.network, source.images))
        write_text(folder / CODE, MODELING.replace("{lines}", lines))


def timm_config(source: ExportNetwork) -> dict[str, Any]:
    """config.json as timm's `save_for_hf` and transformers' `TimmWrapperModel.save_pretrained` write it."""
    model = source.recipe.model
    return {
        "architecture": model.backbone.partition(".")[0],
        "architectures": ["TimmWrapperModel"],
        "model_type": "timm_wrapper",
        "num_classes": 0,
        "num_features": source.network.num_features,
        "model_args": model.arguments,
        "pretrained_cfg": {name: value for name, value in source.images.items() if name != "architecture"},
        MARK: source.metadata,
    }


def code_config(source: ExportNetwork) -> dict[str, Any]:
    """config.json of a folder with code."""
    module = CODE.removesuffix(".py")
    return {
        "architectures": ["BackboneModel"],
        "model_type": "wildfern_backbone",
        "auto_map": {"AutoConfig": f"{module}.BackboneConfig", "AutoModel": f"{module}.BackboneModel"},
        "images": source.images,  # not `pretrained_cfg`, by which transformers tells timm's folders
        MARK: source.metadata,
    }


def processor_config(images: dict[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json: the shorter side is resized, then the center cropped, as in wildfern's evaluation."""
    _, height, width = images["input_size"]
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": height},
        "resample": RESAMPLE[images["interpolation"]],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images["mean"]),
        "image_std": list(images["std"]),
    }


def read_folder(source: ExportNetwork, folder: Path) -> nn.Module:
    """The network of the folder with its weights: for timm built from its configuration alone, else from the recipe."""
    state = load_file(folder / WEIGHTS)
    config = read_json(folder / CONFIG, MOST_CONFIG)
    if "architecture" not in config:
        return source.rebuilt({name.removeprefix(PREFIX): tensor for name, tensor in state.items()})
    network = build_network(config["architecture"], **config["model_args"])
    network.load_state_dict(state)
    return network.eval()


def folder_code(source: ExportNetwork, out: Path) -> list[str]:
    place, three = str(out), source.input_size[0] == 3
    process = [f"processor = AutoImageProcessor.from_pretrained({place!r})"] * three
    if made_by_timm(source.recipe, source.network):
        return [
            "import timm",
            f"model = timm.create_model({f'local-dir:{place}'!r}, pretrained=True)",
            "# or, as pooler_output of its result:",
            "from transformers import AutoImageProcessor, AutoModel",
            f"model = AutoModel.from_pretrained({place!r})",
            *process,
        ]
    return [
        "from transformers import AutoImageProcessor, AutoModel",
        f"# runs {CODE} of the folder; the features are pooler_output of the result",
        f"model = AutoModel.from_pretrained({place!r}, trust_remote_code=True)",
        *process,
    ]


def front_matter(source: ExportNetwork) -> list[str]:
    """The head of README.md that the hub reads. It names no license of the weights, which only their owner can give."""
    library = "timm" if made_by_timm(source.recipe, source.network) else "transformers"
    tags = ("self-supervised-learning", "wildfern")
    return [
        "---",
        f"library_name: {library}",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
    ]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
