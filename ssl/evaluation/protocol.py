"""Evaluate several backbones side by side, the untrained one first, and say in words how each number was made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from wildfern.ssl.evaluation.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Features,
    Pixels,
    Precision,
    device_of,
    extract_features,
    resize_center_crop,
)
from wildfern.ssl.evaluation.few_shot import few_shot as few_shot_results
from wildfern.ssl.evaluation.finetune import finetune
from wildfern.ssl.evaluation.knn import knn
from wildfern.ssl.evaluation.linear_probe import linear_probe

if TYPE_CHECKING:
    from wildfern.ssl.data import Source

Protocol = Literal["linear", "knn", "finetune"]
PROTOCOLS: tuple[str, ...] = ("linear", "knn", "finetune")


@dataclass(frozen=True)
class Evaluation:
    """Rows {dataset, backbone, protocol, accuracy, std, detail}; `protocols` says in words what each protocol does.

    Accuracies are shares in [0, 1], `std` is None where nothing was drawn, `detail` says what this row's number rests on;
    `baseline` names the backbone all others are held against. Evaluations add up: `on_digits + on_cifar10`.
    """

    rows: tuple[dict, ...]
    protocols: dict[str, str]
    baseline: str = "untrained"

    def __add__(self, other: "Evaluation") -> "Evaluation":
        if self.baseline != other.baseline:
            raise ValueError(f"evaluations against {self.baseline!r} and {other.baseline!r} do not add up")
        for name in self.protocols.keys() & other.protocols.keys():
            if self.protocols[name] != other.protocols[name]:
                raise ValueError(f"evaluations by different forms of the protocol {name!r} do not add up")
        return Evaluation(self.rows + other.rows, self.protocols | other.protocols, self.baseline)

    def difference(self, row: dict) -> float | None:
        """Points (hundredths) by which a row lies above the baseline's; None for the baseline itself."""
        if row["backbone"] == self.baseline:
            return None
        same = ("dataset", "protocol")
        for other in self.rows:
            if other["backbone"] == self.baseline and all(other[name] == row[name] for name in same):
                return 100 * (row["accuracy"] - other["accuracy"])
        return None

    def as_json(self) -> dict:
        """What goes into `evaluation.json`: {"baseline", "protocols", "rows"}, rows with their "difference" in points."""
        rows = [{**row, "difference": self.difference(row)} for row in self.rows]
        return {"baseline": self.baseline, "protocols": self.protocols, "rows": rows}

    def table(self) -> Table:
        """The rows for people, in percent, with every protocol in words underneath."""
        words = [f"{name}: {words}" for name, words in self.protocols.items()]
        table = Table(
            title="Accuracy on test, %", caption="\n".join(words), caption_justify="left", title_justify="left"
        )
        for heading in ("dataset", "protocol", "backbone"):
            table.add_column(heading)
        table.add_column("accuracy", justify="right")
        table.add_column(f"points above {self.baseline}", justify="right")
        last = None
        for row in self.rows:
            group = (row["dataset"], row["protocol"])
            if last not in (None, group):
                table.add_section()
            spread = "" if row["std"] is None else f" ± {100 * row['std']:.1f}"
            difference = self.difference(row)
            table.add_row(
                *(group if group != last else ("", "")),
                row["backbone"],
                f"{100 * row['accuracy']:.1f}{spread}",
                "baseline" if difference is None else f"{difference:+.1f}",
                style="dim" if difference is None else None,
            )
            last = group
        return table


def labeled_chunks(source: "Source", name: str, chunk: int = 1024) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """The labeled images of a source, `chunk` items at a time; items with label -1 are left out.

    Raises ValueError, with `name` in it, for an endless source and for one without labels.
    """
    if source.num_items is None:
        raise ValueError(f"{name}: an endless stream cannot be evaluated on; name a data set with labels")
    if source.num_classes is None:
        raise ValueError(
            f"{name}: these images have no labels, and every protocol needs them; "
            "for a folder, put the images of each class into a sub-folder of its own"
        )
    for start in range(0, source.num_items, chunk):
        images = source.read(np.arange(start, min(start + chunk, source.num_items), dtype=np.int64))
        if images.labels is None:
            raise ValueError(f"{name}: images {start} to {start + len(images.pixels) - 1} came without labels")
        kept = np.flatnonzero(images.labels >= 0)
        if not len(kept):
            continue
        whole = isinstance(images.pixels, np.ndarray)
        yield images.pixels[kept] if whole else [images.pixels[i] for i in kept], images.labels[kept]


def evaluate_backbones(
    backbones: dict[str, nn.Module],
    train_source: "Source",
    test_source: "Source",
    *,
    dataset: str,
    size: int | None = None,
    protocols: Sequence[Protocol] = ("linear", "knn"),
    few_shot: Sequence[int] = (),
    seeds: int = 3,
    baseline: str = "untrained",
    k: int = 20,
    temperature: float = 0.07,
    finetune_epochs: int = 10,
    seed: int = 0,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    precision: Precision = "fp32",
    announce: Callable[[str], None] = lambda step: None,
) -> Evaluation:
    """Hold every backbone against the untrained one on one data set; images are read once for all of them.

    `few_shot` lists numbers of labeled images a class, each drawn `seeds` times for the linear probe and kNN.
    `announce` is told what is being done. Raises ValueError when `backbones` has no `baseline`, for an unknown protocol,
    and for sources that are endless, without labels or of fewer than two classes.
    """
    if baseline not in backbones:
        raise ValueError(f"no backbone named {baseline!r} to hold the others against, only {', '.join(backbones)}")
    if unknown := [protocol for protocol in protocols if protocol not in PROTOCOLS]:
        raise ValueError(f"unknown protocol {', '.join(map(repr, unknown))}; there are {', '.join(PROTOCOLS)}")
    if not protocols and not few_shot:
        raise ValueError("nothing to evaluate: name a protocol or a number of shots")
    names = [baseline, *(name for name in backbones if name != baseline)]
    options = {"size": size, "device": device, "mean": mean, "std": std, "precision": precision}
    keep = "finetune" in protocols
    features, images = {}, {}
    for split, source in (("train", train_source), ("test", test_source)):
        announce(f"{dataset}: features of {split}")
        features[split], images[split] = _read(
            {name: backbones[name] for name in names},
            labeled_chunks(source, f"{dataset} ({split})"),
            keep,
            batch_size=batch_size,
            **options,
        )
        if not features[split]:
            raise ValueError(f"{dataset} ({split}): not one image has a label")
    labels = features["train"][baseline].y
    if len(torch.unique(labels)) < 2:
        raise ValueError(f"{dataset} (train): all labeled images are of one class; there is nothing to tell apart")

    rows, words = [], {}

    def add(name: str, protocol: str, accuracy: float, spread: float | None, result) -> None:
        words[protocol] = result.protocol
        row = {"dataset": dataset, "backbone": name, "protocol": protocol, "accuracy": accuracy, "std": spread}
        rows.append({**row, "detail": result.detail})

    for protocol in protocols:
        for name in names:
            announce(f"{dataset}: {protocol} of {name}")
            train, test = features["train"][name], features["test"][name]
            if protocol == "linear":
                result = linear_probe(train, test, seed=seed)
            elif protocol == "knn":
                result = knn(train, test, k=k, temperature=temperature)
            else:
                result = finetune(
                    backbones[name],
                    images["train"],
                    train.y.cpu().numpy(),
                    images["test"],
                    test.y.cpu().numpy(),
                    epochs=finetune_epochs,
                    seed=seed,
                    **options,
                )
            add(name, protocol, result.accuracy, None, result)
    for shots in few_shot:
        announce(f"{dataset}: {shots} labeled images of each class")
        drawn = {
            name: few_shot_results(
                features["train"][name], features["test"][name], shots=shots, seeds=seeds, k=k, temperature=temperature
            )
            for name in names
        }
        for kind in ("linear", "knn"):
            for name in names:
                result = drawn[name][kind]
                add(name, f"{kind}, {shots} a class", result.mean, result.std, result)
    return Evaluation(tuple(rows), words, baseline)


def _read(
    backbones: dict[str, nn.Module],
    chunks: Iterator[tuple[Pixels, NDArray[np.int64]]],
    keep: bool,
    *,
    size: int | None,
    **options,
) -> tuple[dict[str, Features], NDArray[np.uint8] | None]:
    """Features of every backbone over chunks read once; with `keep` also the squared images, for fine-tuning."""
    parts: dict[str, list[Features]] = {name: [] for name in backbones}
    kept = []
    for pixels, labels in chunks:
        for name, backbone in backbones.items():
            parts[name].append(extract_features(backbone, [(pixels, labels)], size=size, **options))
        if keep:
            images = resize_center_crop(pixels, size, device_of(next(iter(backbones.values()))))
            kept.append(images.permute(0, 2, 3, 1).mul(255).round_().byte().cpu().numpy())
    features = {name: Features.concatenated(values) for name, values in parts.items() if values}
    return features, np.concatenate(kept) if kept else None
