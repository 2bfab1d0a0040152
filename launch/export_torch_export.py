"""Export as a program of torch.export, with a dynamic batch size: it runs without timm and without wildfern."""

import json
from pathlib import Path

import torch
from torch.export import ExportedProgram

from wildfern.launch.export_network import ExportNetwork

METADATA = "metadata.json"  # in the archive


def traced(source: ExportNetwork) -> ExportedProgram:
    """The network in eval mode as a program of PyTorch operations: images -> `source.output`."""
    return torch.export.export(source.network, (source.random_images(2),), dynamic_shapes=(source.dynamic_shapes(),))


def described(source: ExportNetwork) -> dict[str, str]:
    """The description of the weights as a file in the archive."""
    return {METADATA: json.dumps(source.metadata, indent=2)}


def read_program(path: Path) -> torch.nn.Module:
    with path.open("rb") as file:  # of a path, torch wants the suffix .pt2
        return torch.export.load(file).module()


def program_code(source: ExportNetwork, out: Path) -> list[str]:
    return [
        "import torch",
        f"model = torch.export.load({str(out)!r}).module()",
        *source.applying(f"{source.output} = model(images)  # {source.images_words()}"),
    ]
