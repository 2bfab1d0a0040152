"""Features for curation: the backbone of a run, or a network by its name."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildfern.launch.device import choose_device
from wildfern.launch.evaluated import Evaluated, check_networks, of_name, of_recipe
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.curation.feature_store import Extract
from wildfern.ssl.curation.policy import Features
from wildfern.ssl.data import DataError, Source
from wildfern.ssl.evaluation.report.image_bank import read_bank

BATCH = 64


def open_features(features: Features) -> tuple[str, Extract, str]:
    """What identifies the network of a policy, the function that extracts its features, and the device that it runs on.

    Raises RunError and ValueError for a network, weights or a run folder that cannot be used.
    """
    assert features.backbone is not None
    device = choose_device("auto")
    if Path(features.backbone).expanduser().is_dir():
        folder = RunFolder.for_reading(Path(features.backbone).expanduser())
        backbone = folder.backbone()
        model = of_recipe(folder.recipe(), {"pretrained": backbone}, device)["pretrained"]
        name = folder.path.name
    else:
        wanted = (features.backbone, features.weights)
        check_networks([wanted], features.size)
        name, model, _ = of_name(wanted, features.size, device)
    return f"{name} at {model.preprocessing.size} px, weights sha256 {_digest(model)}", _extracting(model), str(device)


def _extracting(model: Evaluated) -> Extract:
    def extract(source: Source, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], Tensor]:
        try:
            kept, found = read_bank(source, items, {"x": model.backbone}, {"x": model.preprocessing}, BATCH)
        except DataError:  # none of them can be read
            return np.zeros(0, np.int64), torch.zeros(0, 1)
        return kept, found["x"].x

    return extract


def _digest(model: Evaluated) -> str:
    """SHA-256 of the names and values of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()
