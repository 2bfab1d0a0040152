"""The same images on every rank: others would train to other numbers, with images left out or repeated, without an error."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wildfern.launch.builders import second_entries
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.data_record import fingerprint_of
from wildfern.launch.errors import RunError
from wildfern.recipes import Recipe
from wildfern.ssl.data import Mixture
from wildfern.ssl.data.clusters import digest_of
from wildfern.ssl.data.fingerprint import sampled_contents
from wildfern.ssl.data.subset import Subset

Facts = dict[str, Any]  # of one source: what is compared, by its name in messages
SHOWN = 3


def check_same_data(
    recipe: Recipe,
    mixture: Mixture,
    second_images: Mapping[str, Mixture],
    weights: Mapping[str, str | None],
    context: DistributedContext,
) -> None:
    """Raise RunError on every rank where the images of some rank differ from those of rank 0; called by all ranks.

    Compares numbers of items, names and sizes of files, and the contents of a sample of them (of all, if the recipe asks for that
    fingerprint); classes and labels if they are used; of the second images of views (`second_images`, by argument) the same
    without labels; and `weights`, SHA-256 by name of those that training starts from, and of frozen teachers. An error of one
    rank in reading them is raised on every rank.
    """
    if context.world_size == 1:
        return
    found: dict[str, Facts] = {}
    error = None
    try:
        found = facts(recipe, mixture, second_images)
        found |= {f"0 {name}": {"content": sha256} for name, sha256 in weights.items()}
    except (ValueError, OSError) as caught:
        error = caught
    context.raise_on_all(error)
    check_same_facts(found, context.all_gather)


def facts(recipe: Recipe, mixture: Mixture, second_images: Mapping[str, Mixture]) -> dict[str, Facts]:
    """What is compared, by source."""
    entries = [(entry.source, mixture, number, entry) for number, entry in enumerate(recipe.data)]
    wanted = second_entries(recipe)
    for argument, second in second_images.items():
        for number, entry in enumerate(wanted[argument]):
            entries.append((f"views.{argument}: {entry.source}", second, number, entry))
    found = {}
    for place, (name, images, number, entry) in enumerate(entries):
        source = images.sources[number]
        one: Facts = {"items": source.num_items}
        files = fingerprint_of(images, number, entry.fingerprint == "contents")
        if files is not None:
            one |= {"files": files.files, "bytes": files.bytes, "names or sizes of files": files.names}
            one["contents of files"] = files.contents or sampled_contents(source.files() or ())
        if isinstance(source, Subset):
            one["chosen images"] = digest_of(source.items)
        if images.guide is not None:
            one["clusters of the guide"] = images.guide.digest
        if source.reads_labels:
            names, labels = source.class_names, getattr(source, "labels", None)
            one["classes"] = source.num_classes
            one["names of classes"] = names and _digest("\n".join(names).encode("utf-8", "replace"))
            one |= {"labels": _digest(labels.tobytes())} if isinstance(labels, np.ndarray) else {}
        found[f"{place} {name}"] = one
    return found


def check_same_facts(own: dict[str, Facts], all_gather: Callable[[Any], list[Any]]) -> None:
    """Raise RunError where the facts of some rank differ from those of rank 0. `all_gather` returns each rank's, by rank."""
    gathered = all_gather((socket.gethostname(), own))
    main_host, expected = gathered[0]
    different: dict[str, list[str]] = {}  # ranks and hosts by what differs
    for rank, (host, found) in enumerate(gathered):
        for place in [place for place in expected | found if found.get(place) != expected.get(place)]:
            text = _difference(found.get(place, {}), expected.get(place, {}))
            name = place.partition(" ")[2]
            different.setdefault(f"{name} is not the same: {text}", []).append(f"rank {rank} on host {host}")
    if different:
        words = []
        for text, ranks in list(different.items())[:SHOWN]:
            more = f" and {len(ranks) - SHOWN} more" if len(ranks) > SHOWN else ""
            words.append(f"{text} ({', '.join(ranks[:SHOWN])}{more}, against rank 0 on host {main_host})")
        raise RunError(f"{'; '.join(words)}. Every rank must see the same data: copy it, or mount it, on every host")


def _difference(found: Facts, expected: Facts) -> str:
    """What differs, with both numbers where they are numbers."""
    words = []
    for name in expected | found:
        here, there = found.get(name), expected.get(name)
        if here != there:
            known = all(isinstance(value, int) or value is None for value in (here, there))
            words.append(f"{_number(here)} against {_number(there)} {name}" if known else f"other {name}")
    return ", ".join(words)


def _number(value: int | None) -> str:
    return "no" if value is None else f"{value}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
