"""Pretrained weights for a network: from a file, a run folder, or downloaded by timm or torchvision."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor, nn

from wildfern.ssl.models.networks import TORCHVISION

RUN_WEIGHTS = "backbone.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt")
DEFAULT_TAG = "timm"
CONTAINERS = ("state_dict", "model", "model_state_dict")  # keys under which training programs save a state dict

Triple = tuple[float, ...]


@dataclass(frozen=True)
class LoadedWeights:
    """Loaded weights: SHA-256 of the file (of the tensors, if downloaded), and (mean, std) of their images.

    `normalization` is None for weights of wildfern, which uses that of ImageNet.
    """

    sha256: str
    normalization: tuple[Triple, Triple] | None


def load_weights(
    network: nn.Module, name: str, weights: str, in_chans: int, arguments: dict[str, Any]
) -> LoadedWeights:
    """Load `weights` (see `Backbone`) into `network`, the model `name` built with `arguments`.

    A warning lists weights of the file that the network does not have, except a classifier's. Raises ValueError if the
    weights cannot be found or read, and if one of the network's is missing or of another shape.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        if not (path / RUN_WEIGHTS).is_file():
            raise ValueError(f"weights: {path} is a folder without {RUN_WEIGHTS}, so it is not a run folder")
        path = path / RUN_WEIGHTS
    if not path.is_file():
        if path.suffix in SUFFIXES or len(path.parts) > 1:
            raise ValueError(f"weights: there is no file or folder {path}")
        return _download(network, name, weights, in_chans, arguments)
    load_state(network, read_state(path), name, str(path))
    own = path.name == RUN_WEIGHTS or (path.parent / "recipe.yaml").is_file()
    with path.open("rb") as file:
        return LoadedWeights(hashlib.file_digest(file, "sha256").hexdigest(), None if own else _normalization(network))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth or .pt file by name, from its `state_dict` entry if there is one.

    Runs no code of the file. Raises ValueError for a file of another type, a damaged one, and one without tensors.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"weights: {path} is not one of {', '.join(SUFFIXES)}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"weights: {path} contains Python objects or is damaged; save only the tensors: torch.save(model.state_dict(), …)"
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"weights: {path} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    for _ in CONTAINERS:  # nested at most this deep; a hostile file may contain itself
        inner = next((key for key in CONTAINERS if key in state), None) if isinstance(state, Mapping) else None
        state = state if inner is None else state[inner]
    tensors = (
        {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if isinstance(state, Mapping)
        else {}
    )
    if not tensors:
        raise ValueError(
            f"weights: {path} contains no named tensors, neither directly nor under {', '.join(CONTAINERS)}"
        )
    return tensors


def load_state(network: nn.Module, state: Mapping[str, Tensor], name: str, where: str) -> None:
    """Copy `state` into `network`; its names may all carry one prefix, such as `module.` or `backbone.`.

    Raises ValueError when a weight is missing or of another shape; the network is unchanged then.
    """
    expected = network.state_dict()
    wanted = {key for key in expected if not key.endswith("num_batches_tracked")}
    prefix = _prefix(wanted, state, where)
    if missing := sorted(key for key in wanted if prefix + key not in state):
        raise ValueError(
            f"weights: {where} is not of {name}: {_listed(missing)} of its {len(wanted)} weights are missing; the file has "
            f"{_listed(sorted(state))}"
        )
    for key in sorted(wanted):
        if state[prefix + key].shape != expected[key].shape:
            raise ValueError(
                f"weights: {key} in {where} is {list(state[prefix + key].shape)}, in {name} {list(expected[key].shape)}: "
                "model.arguments, in_chans or stem differ"
            )
    classifiers = _classifiers(network)
    unused = [k for k in state if k.removeprefix(prefix) not in expected or not k.startswith(prefix)]
    unused = sorted(k for k in unused if not k.removeprefix(prefix).startswith(classifiers))
    if unused:
        warnings.warn(f"weights: {_listed(unused)} in {where} are not weights of {name} and are not used", stacklevel=2)
    found = {key: state[prefix + key] for key in expected if prefix + key in state}
    network.load_state_dict(found, strict=False)


def _prefix(wanted: set[str], state: Mapping[str, Tensor], where: str) -> str:
    """The prefix of the network's names in a file: that under which most of them are found.

    Raises ValueError if the whole network is there under two prefixes (a student and a teacher).
    """
    probe = min(wanted, default="")
    candidates = {key.removesuffix(probe) for key in state if key.endswith(probe)}
    candidates = {prefix for prefix in candidates if not prefix or prefix.endswith(".")}
    complete = sorted(prefix for prefix in candidates if all(prefix + key in state for key in wanted))
    if len(complete) > 1:
        names = " and ".join(repr(prefix) for prefix in complete)
        raise ValueError(f"weights: {where} contains this network more than once, under {names}: save only one of them")
    return max(sorted(candidates), key=lambda prefix: sum(prefix + key in state for key in wanted), default="")


def _download(network: nn.Module, name: str, tag: str, in_chans: int, arguments: dict[str, Any]) -> LoadedWeights:
    if name.startswith(TORCHVISION):
        state = _torchvision_state(name.removeprefix(TORCHVISION), tag)
        load_state(network, state, name, f"torchvision's weights {tag}")
        return LoadedWeights(_sha256(network), None)  # torchvision normalizes as ImageNet
    model = name.partition(".")[0]
    configs = {} if name == "small_alexnet" else get_arch_pretrained_cfgs(model)
    known = [full.partition(".")[2] for full, config in configs.items() if config.has_weights]
    if not known:
        raise ValueError(f"weights: there is no file or folder {tag}, and {name} has no pretrained weights to download")
    if tag != DEFAULT_TAG and tag not in known:
        raise ValueError(
            f"weights: there is no file or folder {tag}, and {name} has no pretrained tag {tag}; it has: "
            f"{DEFAULT_TAG} (the default), {', '.join(filter(None, known))}"
        )
    full = name if tag == DEFAULT_TAG else f"{model}.{tag}"
    try:
        source = timm.create_model(full, pretrained=True, num_classes=0, in_chans=in_chans, **arguments)
    except Exception as error:  # of the hub's client, requests or the file reader
        raise ValueError(_not_fetched(full, error)) from error
    load_state(network, source.state_dict(), name, f"timm's weights {full}")
    return LoadedWeights(_sha256(network), _normalization(source))


def _torchvision_state(name: str, tag: str) -> dict[str, Tensor]:
    from torchvision import models

    choices = models.get_model_weights(name)
    if tag != DEFAULT_TAG and tag not in choices.__members__:
        raise ValueError(
            f"weights: there is no file or folder {tag}, and {TORCHVISION}{name} has no pretrained weights {tag}; it has: "
            f"{DEFAULT_TAG} (the default), {', '.join(choices.__members__)}"
        )
    try:
        return (choices.DEFAULT if tag == DEFAULT_TAG else choices[tag]).get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # of urllib, and of the hash
        raise ValueError(_not_fetched(TORCHVISION + name, error)) from error


def _not_fetched(what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"weights: the pretrained weights of {what} cannot be downloaded or loaded ({reason}); without a network, give a file: "
        "weights=PATH"
    )


def _normalization(network: nn.Module) -> tuple[Triple, Triple] | None:
    config = getattr(network, "pretrained_cfg", None) or {}
    return (tuple(config["mean"]), tuple(config["std"])) if config.get("mean") and config.get("std") else None


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    """Prefixes of the classifier's weights, which a backbone does not have."""
    config = getattr(network, "pretrained_cfg", None) or {}
    named = config.get("classifier") or ("fc", "classifier", "head", "heads")
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))


def _sha256(network: nn.Module) -> str:
    """SHA-256 of the tensors with their names, in order of the names."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _listed(names: list[str]) -> str:
    """The first three names, and the number of names."""
    return ", ".join(names[:3]) + (f" … ({len(names)})" if len(names) > 3 else "")
