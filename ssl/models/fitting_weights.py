"""Find a network's weights among the tensors of a checkpoint, under any prefix, and convert them as timm does.

Checkpoints contain a network under `state_dict.`, `model.`, `teacher.backbone.`, `module.encoder_q.` …, often twice (student and
teacher), beside heads, queues and the optimizer's state.
"""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from wildfern.ssl.models.networks import OWN, TORCHVISION

# What training programs wrap a network in.
WRAPPER = re.compile(
    r"module|_orig_mod|_fsdp_wrapped_module|_forward_module|net|trunk|visual|feature_extractor|base|"
    r".*(model|network|backbone|encoder|teacher|student|online|target|momentum|state_dict|ema).*"
)
# torch.compile, FSDP and activation checkpointing also wrap modules inside a network.
INNER = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.")  # DINOv2 trained with FSDP: blocks.CHUNK.BLOCK
# If a file has a network more than once: the one that the authors of most methods evaluate, first to last.
ROLES = (r"teacher", r"(^|[._])ema([._]|$)", r"", r"student", r"momentum|target|encoder_k")
FILTERS = ("checkpoint_filter_fn", "checkpoint_filter_fn_encoder", "_filter_fn", "_filter_torchvision_pretrained")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MERGED = "method/"  # how the names of a run's state start, as `wildfern checkpoint merge` writes it
MOST_TRIED = 24  # prefixes whose tensors are converted to see whether they fit

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Fit:
    """A network's weights as found in a checkpoint.

    - state: what to load, by the network's names.
    - prefix: that of the network in the file, for example `teacher.backbone.`.
    - others: further prefixes under which the whole network is in the file.
    - changed: weights that were converted to another shape, in words.
    - not_used: the file's other tensors, those beside the network first.
    - lacking: those of them that are inside this network's own blocks: the file is of another architecture.
    """

    state: dict[str, Tensor]
    prefix: str
    others: tuple[str, ...]
    changed: tuple[str, ...]
    not_used: tuple[str, ...]
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    prefix: str
    state: dict[str, Tensor]  # under this prefix, converted
    used: int
    complete: bool


def fit(network: nn.Module, name: str, tensors: Tensors, where: str | Path, key: str | None, in_chans: int) -> Fit:
    """The weights of `network` among `tensors`; `key` chooses between several networks, by a part of the prefix.

    Names and shapes are converted by timm's own functions for the model: position embeddings and patches are resized, the first
    convolution is adapted to `in_chans`. Raises ValueError if a weight is missing, of another shape, no float, NaN or infinite.
    """
    expected = network.state_dict()
    # Counters and tables of indices are set by the constructor.
    buffers = {n for n, b in network.named_buffers() if not b.is_floating_point()}
    wanted = {n for n in expected if n not in buffers}
    inside = {INNER.sub("", original): original for original in tensors}
    named = {inner: tensors[original] for inner, original in inside.items()}
    counts: Mapping[str, int] = _prefixes(wanted, named)
    if key is not None:
        exact = {p: n for p, n in counts.items() if f".{key.strip('.')}." in f".{p}"}
        chosen = exact or {p: n for p, n in counts.items() if key in p}
        if not chosen:
            found = ", ".join(p.rstrip(".") or "(no prefix)" for p in _likeliest(counts)[:6])
            raise ValueError(f"model.weights_key: {where} has no network under {key!r}; it has: {found}")
        counts = chosen
    candidates = _complete(counts, named, expected, wanted) or _converted(
        counts, named, network, name, expected, wanted, in_chans
    )
    best = candidates[0]
    if not best.complete:
        # The one with most names: of another width no shape is equal, except by chance in some part.
        best = max(candidates, key=lambda c: sum(n in c.state for n in wanted))
        raise ValueError(f"model.weights: {_misfit(best, expected, wanted, name, where, tensors)}")
    state = {n: best.state[n] for n in expected if n in best.state and best.state[n].shape == expected[n].shape}
    for n, value in state.items():
        if not expected[n].is_floating_point():
            continue
        if value.dtype not in FLOATS:
            types, found = ", ".join(map(str, FLOATS)).replace("torch.", ""), str(value.dtype).removeprefix("torch.")
            raise ValueError(f"model.weights: {n} in {where} is of the type {found}; it must be of one of: {types}")
        if not torch.isfinite(value).all():
            raise ValueError(f"model.weights: {n} in {where} contains NaN or infinity")
    unchanged = _below(best.prefix, named)
    changed = [
        f"{n} {list(unchanged[n].shape)} to {list(value.shape)}"
        for n, value in state.items()
        if n in unchanged and unchanged[n].shape != value.shape
    ]
    used = {best.prefix + n for n in state}
    loaded = {value.data_ptr() for value in state.values()}  # also under another name
    used |= {best.prefix + n for n, value in unchanged.items() if value.data_ptr() in loaded}
    rest = [inner for inner in named if inner not in used]
    rest.sort(key=lambda inner: not inner.startswith(best.prefix))  # stable
    others = [c.prefix for c in candidates[1:] if c.complete and not best.prefix.startswith(c.prefix)]
    originals = ((n, inside.get(best.prefix + n, "")) for n in state)
    prefix = next((original.removesuffix(n) for n, original in originals if original.endswith(n)), best.prefix)
    lacking = _inside(
        network, [n for n, value in best.state.items() if n not in expected and value.is_floating_point()]
    )
    return Fit(state, prefix, tuple(others), tuple(changed), tuple(inside[inner] for inner in rest), lacking)


def summary(found: Fit, name: str, where: str) -> str:
    """What was read, changed and left out, in one line."""
    parts = [f"{len(found.state)} weights of {name} from {where}"]
    if found.prefix:
        parts[0] += f", under {found.prefix.rstrip('.')}"
    if found.others:
        also = ", ".join(prefix.rstrip(".") or "(no prefix)" for prefix in found.others)
        parts.append(f"the file also has this network under {also} (model.weights_key chooses)")
    if found.lacking:
        parts.append(
            f"the file's network has {len(found.lacking)} more weights inside its blocks, such as {found.lacking[0]}, which "
            f"{name} lacks: it is another architecture and computes something else; set model.backbone to the file's own"
        )
    if found.changed:
        parts.append(f"resized {listed(found.changed)}")
    if found.not_used:
        parts.append(f"not used: {listed(found.not_used)}")
    return "; ".join(parts)


def listed(names: Iterable[str]) -> str:
    """The first three names, and the number of names."""
    names = list(names)
    return ", ".join(names[:3]) + (f" … ({len(names)})" if len(names) > 3 else "")


def _inside(network: nn.Module, names: list[str]) -> tuple[str, ...]:
    """Names of weights that would belong to a module below the network's outermost ones, where heads are."""
    deep = {path for path, _ in network.named_modules() if "." in path}
    return tuple(n for n in names if n.rpartition(".")[0] in deep or n.rpartition(".")[0].rpartition(".")[0] in deep)


def _prefixes(wanted: set[str], named: Tensors) -> Counter[str]:
    """How many of the network's names are found under each prefix; and the prefixes that are wrappers of networks, with 0."""
    counts: Counter[str] = Counter()
    for inner in named:
        parts = inner.split(".")
        wrapped = True
        for n in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:n])
            wrapped = wrapped and (n == 0 or WRAPPER.fullmatch(parts[n - 1]) is not None)
            if ".".join(parts[n:]) in wanted:
                counts[prefix] += 1
            elif wrapped:
                counts[prefix] += 0
    return counts


def _role(prefix: str) -> int:
    """The place in ROLES of the network with this prefix."""
    return next((n for n, role in enumerate(ROLES) if role and re.search(role, prefix)), ROLES.index(""))


def _likeliest(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda prefix: (-counts[prefix], _role(prefix), len(prefix), prefix))


def _complete(counts: Mapping[str, int], named: Tensors, expected: Tensors, wanted: set[str]) -> list[_Candidate]:
    """The prefixes under which the whole network is, with equal shapes, the preferred role first."""
    found = []
    for prefix in _likeliest(counts):
        if counts[prefix] == len(wanted):
            below = _below(prefix, named)
            if all(below[n].shape == expected[n].shape for n in wanted):
                found.append(_Candidate(prefix, below, len(wanted), True))
    return found


def _converted(
    counts: Mapping[str, int],
    named: Tensors,
    network: nn.Module,
    name: str,
    expected: Tensors,
    wanted: set[str],
    in_chans: int,
) -> list[_Candidate]:
    """The likeliest prefixes, with their tensors converted by timm, the best fit first."""
    found = []
    for prefix in _likeliest(counts)[:MOST_TRIED] or [""]:
        state = _as_timm(_below(prefix, named), network, name, in_chans)
        used = sum(n in state and state[n].shape == expected[n].shape for n in wanted)
        found.append(_Candidate(prefix, state, used, used == len(wanted)))
    return sorted(found, key=lambda c: (-c.used, _role(c.prefix), -counts.get(c.prefix, 0)))


def _below(prefix: str, named: Tensors) -> dict[str, Tensor]:
    return {inner[len(prefix) :]: value for inner, value in named.items() if inner.startswith(prefix)}


def _as_timm(state: dict[str, Tensor], network: nn.Module, name: str, in_chans: int) -> dict[str, Tensor]:
    """Names and shapes as timm converts them when it loads such a file."""
    if any(CHUNKED.match(n) for n in state):
        state = {CHUNKED.sub(r"blocks.\1.", n): value for n, value in state.items()}
    if name in OWN or name.startswith(TORCHVISION):
        return state
    if (convert := _filter(name)) is not None:
        try:
            state = convert(dict(state), network)
        except Exception:  # tensors of another kind of network, which are reported as such
            return state
    config = getattr(network, "pretrained_cfg", None) or {}
    first = config.get("first_conv") or ()
    for module in [first] if isinstance(first, str) else first:
        weight, own = state.get(f"{module}.weight"), network.state_dict().get(f"{module}.weight")
        if weight is not None and own is not None and weight.shape[1:2] != own.shape[1:2]:
            with suppress(NotImplementedError, ValueError, AssertionError, RuntimeError):  # its shape is reported
                state[f"{module}.weight"] = adapt_input_conv(in_chans, weight)
    return state


def _filter(name: str) -> Callable[..., dict[str, Tensor]] | None:
    """timm's function that converts checkpoints for this model, from the module that defines the model."""
    module = sys.modules[timm.models.model_entrypoint(name.partition(".")[0]).__module__]
    function = next((f for f in (getattr(module, name, None) for name in FILTERS) if callable(f)), None)
    if function is None:
        return None
    parameters = inspect.signature(function).parameters
    options: dict[str, Any] = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}

    def convert(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        given = (state, network) if len(parameters) > 1 else (state,)
        converted: dict[str, Tensor] = function(*given, **options)
        return converted

    return convert


def _misfit(
    best: _Candidate, expected: Tensors, wanted: set[str], name: str, where: str | Path, tensors: Tensors
) -> str:
    missing = sorted(n for n in wanted if n not in best.state)
    has = f"the file has {listed(sorted(tensors))}"
    if len(missing) == len(wanted):
        return f"{where} has none of the {len(wanted)} weights of {name}: it is of another network; {has}"
    parts = []
    if missing:
        parts.append(f"{listed(missing)} of its {len(wanted)} weights are missing")
    shaped = [n for n in sorted(wanted) if n in best.state and best.state[n].shape != expected[n].shape]
    if shaped:
        n = shaped[0]
        shapes = f"{list(best.state[n].shape)} in the file, {list(expected[n].shape)} in the network"
        parts.append(f"{len(shaped)} of them have another shape: {n} is {shapes}")
    under = f" (under {best.prefix.rstrip('.')})" if best.prefix else ""
    of_a_run = (
        "it is the state of a run: give the run folder to the command in place of a network and its weights, or the section "
        "model of its recipe.yaml to a new run; "
    )
    return (
        f"{where} does not fit {name}{under}: {'; '.join(parts)}; is it of another network, or do model.arguments, in_chans or "
        f"stem differ? {of_a_run if best.prefix.startswith(MERGED) else ''}{has}"
    )
