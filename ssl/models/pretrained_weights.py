"""Pretrained weights for a network: from a file, a run folder, or downloaded by timm or torchvision."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor, nn

from wildfern.ssl.models.checkpoint_file import read_tensors
from wildfern.ssl.models.fitting_weights import Fit, fit, listed, summary
from wildfern.ssl.models.networks import OWN, TORCHVISION

RUN_WEIGHTS = "backbone.safetensors"
FOLDER_WEIGHTS = (RUN_WEIGHTS, "model.safetensors", "pytorch_model.bin")  # of wildfern; of a folder from Hugging Face
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
DEFAULT_TAG = "timm"
LIBRARIES = ("timm", "torchvision")

Triple = tuple[float, ...]


@dataclass(frozen=True)
class LoadedWeights:
    """Loaded weights: SHA-256 of the file (of the tensors, if downloaded), and (mean, std) of their images.

    `file` is the file's name, or what was downloaded. `normalization` is None for weights of wildfern, which uses that of
    ImageNet. `message` says in one line what was read, where in the file it was, what was changed and what is not used.
    """

    sha256: str
    normalization: tuple[Triple, Triple] | None
    file: str
    prefix: str
    not_used: tuple[str, ...]
    message: str

    def as_json(self) -> dict[str, Any]:
        """For `environment.json`: names without folders."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "prefix": self.prefix,
            "not_used": listed(self.not_used),
        }


def load_weights(
    network: nn.Module, name: str, weights: str, key: str | None, in_chans: int, arguments: dict[str, Any]
) -> LoadedWeights:
    """Load `weights` (see `Backbone`) into `network`, the model `name` built with `arguments`.

    Raises ValueError if the weights cannot be found or read, and if one of the network's is missing or of another shape; the
    network is unchanged then.
    """
    path = weights_file(weights)
    if path is None:
        if key is not None:
            raise ValueError(f"model.weights_key is for files; {weights} is downloaded")
        return _download(network, name, weights, in_chans, arguments)
    # In a run folder: of wildfern, which writes safetensors.
    of_a_run = path.name == RUN_WEIGHTS and os.path.lexists(path.parent / "recipe.yaml")
    found = fit(network, name, read_tensors(path, only_safetensors=of_a_run), path, key, in_chans)
    network.load_state_dict(found.state, strict=False)
    own = path.name == RUN_WEIGHTS or (path.parent / "recipe.yaml").is_file()
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    message = f"model.weights: {summary(found, name, str(path))}"
    return LoadedWeights(
        sha256, None if own else _normalization(network), path.name, found.prefix, found.not_used, message
    )


def weights_file(weights: str) -> Path | None:
    """The file that `weights` names, itself or in a folder; None for weights to download.

    Raises ValueError for what looks like a path but is not there, and for a folder without weights.
    """
    if re.match(r"\w+://", weights):
        raise ValueError(f"model.weights: {weights} is not downloaded: download it, and give the file")
    path = Path(weights).expanduser()
    if path.is_dir():
        if os.path.lexists(path / "recipe.yaml") and os.path.lexists(path / RUN_WEIGHTS):
            return path / RUN_WEIGHTS  # of a run: a link or a FIFO is refused when it is read
        there = next((path / name for name in FOLDER_WEIGHTS if (path / name).is_file()), None)
        if there is None:
            raise ValueError(
                f"model.weights: {path} is a folder without {RUN_WEIGHTS}, so it is not a run folder; name the file itself"
                f"{_files(path)}"
            )
        return there
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise ValueError(f"model.weights: there is no file or folder {path}")
    return None


def _files(folder: Path) -> str:
    """The newest files in a folder, or in those inside it, that may hold weights, as the end of an error message."""
    found = [file for way in ("*", "*/*") for file in folder.glob(way) if file.suffix in SUFFIXES and file.is_file()]
    found.sort(key=lambda file: -file.stat().st_mtime)
    return f", for example {' or '.join(map(str, found[:2]))}" if found else ""


def _tag(name: str, weights: str) -> str:
    """The tag in `timm:TAG`, `TAG`, or `timm` and `torchvision` (the default). Raises ValueError for the other library."""
    library, _, tag = weights.partition(":")
    if library not in LIBRARIES:
        return weights
    own = "torchvision" if name.startswith(TORCHVISION) else "timm"
    if library == "torchvision" != own:
        raise ValueError(f"model.weights: {name} is a model of timm: give timm, timm:TAG or a file, not {weights}")
    return tag or DEFAULT_TAG


def _download(network: nn.Module, name: str, weights: str, in_chans: int, arguments: dict[str, Any]) -> LoadedWeights:
    tag = _tag(name, weights)
    if name.startswith(TORCHVISION):
        what = f"torchvision's weights {tag}"
        state = _torchvision_state(name.removeprefix(TORCHVISION), tag)
        found = fit(network, name, state, what, None, in_chans)
        network.load_state_dict(found.state, strict=False)
        return _downloaded(network, name, what, found, None)  # torchvision normalizes as ImageNet
    model = name.partition(".")[0]
    configs = {} if name in OWN else get_arch_pretrained_cfgs(model)
    known = [full.partition(".")[2] for full, config in configs.items() if config.has_weights]
    if not known:
        raise ValueError(
            f"model.weights: there is no file or folder {weights}, and {name} has no pretrained weights to download"
        )
    if tag != DEFAULT_TAG and tag not in known:
        raise ValueError(
            f"model.weights: there is no file or folder {weights}, and {name} has no pretrained tag {tag}; it has: "
            f"{DEFAULT_TAG} (the default), {', '.join(filter(None, known))}"
        )
    full = name if tag == DEFAULT_TAG else f"{model}.{tag}"
    try:
        source = timm.create_model(full, pretrained=True, num_classes=0, in_chans=in_chans, **arguments)
    except Exception as error:  # of the hub's client, requests or the file reader
        raise ValueError(_not_fetched(full, error)) from error
    what = f"timm's weights {full}"
    found = fit(network, name, source.state_dict(), what, None, in_chans)
    network.load_state_dict(found.state, strict=False)
    return _downloaded(network, name, what, found, _normalization(source))


def _downloaded(
    network: nn.Module, name: str, what: str, found: Fit, normalization: tuple[Triple, Triple] | None
) -> LoadedWeights:
    message = f"model.weights: {summary(found, name, what)}"
    return LoadedWeights(tensors_sha256(network), normalization, what, found.prefix, found.not_used, message)


def _torchvision_state(name: str, tag: str) -> dict[str, Tensor]:
    from torchvision import models

    choices = models.get_model_weights(name)
    if tag != DEFAULT_TAG and tag not in choices.__members__:
        raise ValueError(
            f"model.weights: there is no file or folder {tag}, and {TORCHVISION}{name} has no pretrained weights {tag}; it "
            f"has: {DEFAULT_TAG} (the default), {', '.join(choices.__members__)}"
        )
    try:
        return (choices.DEFAULT if tag == DEFAULT_TAG else choices[tag]).get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # of urllib, and of the hash
        raise ValueError(_not_fetched(TORCHVISION + name, error)) from error


def _not_fetched(what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"model.weights: the pretrained weights of {what} cannot be downloaded or loaded ({reason}); without a network, give a "
        "file: model.weights=PATH"
    )


def _normalization(network: nn.Module) -> tuple[Triple, Triple] | None:
    config = getattr(network, "pretrained_cfg", None) or {}
    return (tuple(config["mean"]), tuple(config["std"])) if config.get("mean") and config.get("std") else None


def tensors_sha256(network: nn.Module) -> str:
    """SHA-256 of the tensors with their names, in order of the names."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        if value.is_meta:  # of an estimate, which has no values
            continue
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
