"""The data sets to evaluate on: opened, and checked against the networks and protocols before anything is computed."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from wildfern.launch.errors import RunError
from wildfern.launch.protocols import Dataset, DatasetLike, check_dataset
from wildfern.ssl.data import Source, open_source, source_signature
from wildfern.ssl.data.base import EmptySplit, NoImages
from wildfern.ssl.evaluation import Evaluator
from wildfern.ssl.evaluation.label_checks import check_labels
from wildfern.ssl.evaluation.labeled_chunks import check_number_of_labels, label_array


def evaluation_sources(on: Iterable[DatasetLike | Dataset], download: bool = False) -> dict[str, tuple[Source, Source]]:
    """The train and test parts of each data set, by its label."""
    datasets = [one if isinstance(one, Dataset) else check_dataset(one) for one in on]
    return {dataset.label: labeled(dataset, download) for dataset in datasets}


def labeled(dataset: DatasetLike | Dataset, download: bool = False) -> tuple[Source, Source]:
    """The train and test parts of a data set; `download` downloads it if its source can.

    Classes of a folder are its sub-folders. Of a folder, parquet files, shards or a data set of the hub without a test split one
    image in five is test; images with masks may be test alone. Arguments of the data set override this.
    """
    if not isinstance(dataset, Dataset):
        dataset = check_dataset(dataset)
    source = dataset.source
    scheme = source.partition(":")[0]
    arguments: dict[str, Any] = (
        {"test_fraction": 0.2} if scheme in ("folder", "parquet", "webdataset", "hf", "csv") else {}
    )
    if scheme == "folder":
        arguments["labels"] = "folders"
    if download and "download" in inspect.signature(source_signature(source)).parameters:
        arguments["download"] = True
    arguments |= dataset.arguments
    try:
        train, why = open_source(source, "train", **arguments), ""
    except EmptySplit as error:
        train, why = None, str(error)
    test = open_source(source, "test", **arguments)
    if train is None:
        train = NoImages(test.channels, why)
    if train.num_items is None:
        raise RunError(
            f"{source} is endless and cannot be evaluated on; name a data set with labels, for example digits"
        )
    return train, test


def check_channels_of(
    sources: Mapping[str, tuple[Source, Source]], channels: int, backbone: str = "the backbone"
) -> None:
    """Raise RunError for a data set whose images do not have as many channels as a backbone is made for."""
    for name, (train, _) in sources.items():
        if train.channels != channels:
            raise RunError(
                f"{name} gives images of {train.channels} channels, but {backbone} takes {channels}: "
                "choose the bands, for example {source: folder:PATH, bands: [3, 2, 1]}"
            )


def check_networks_of(
    evaluators: Mapping[str, Evaluator], backbone: nn.Module, size: int | None, where: str = ""
) -> None:
    """Raise RunError if an evaluator cannot take the backbone, or images of `size` pixels; `where` the evaluators are named."""
    for protocol, evaluator in evaluators.items():
        try:
            evaluator.check_network(backbone, size)
        except ValueError as error:
            raise RunError(": ".join([*([where] if where else []), protocol, str(error)])) from error


def check_for_labels(sources: Mapping[str, tuple[Source, Source]], evaluators: Mapping[str, Evaluator]) -> None:
    needing = [
        protocol for protocol, evaluator in evaluators.items() if evaluator.needs_labels and not evaluator.targets
    ]
    for name, pair in sources.items() if needing else ():
        if any(source.num_classes is None for source in pair):
            hint = getattr(pair[0], "label_hint", None)
            why = f": {hint}" if hint else ""
            raise RunError(f"{name} has no labels, which {' and '.join(needing)} cannot do without{why}")
    predicting = [protocol for protocol, evaluator in evaluators.items() if evaluator.targets]
    for name, pair in sources.items() if predicting else ():
        if not all(source.parameter_names for source in pair):
            raise RunError(
                f"{name} has no numbers that {' and '.join(predicting)} could predict: name columns of them, as in "
                "{source: parquet:PATH, target_columns: [age]}"
            )


def check_labels_of(sources: Mapping[str, tuple[Source, Source]], evaluators: Mapping[str, Evaluator]) -> None:
    """Raise RunError or ValueError for a data set whose labels are missing or of no use to an evaluator.

    Reads labels, but no images; a source that keeps its labels with the images is checked when these are read.
    """
    check_for_labels(sources, evaluators)
    needing = [
        protocol for protocol, evaluator in evaluators.items() if evaluator.needs_labels and not evaluator.targets
    ]
    single_label = [protocol for protocol in needing if not evaluators[protocol].multi_label]
    for name, pair in sources.items() if needing else ():
        found = [getattr(source, "labels", None) for source in pair]
        if any(labels is None for labels in found):
            continue
        train, test = (label_array(labels) for labels in found)
        check_number_of_labels(train, f"{name} (train)", single_label)
        check_labels(name, *(labels[labels >= 0] if labels.ndim == 1 else labels for labels in (train, test)))
