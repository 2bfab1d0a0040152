"""Which ranks extract the features of an evaluation together: all that read the same images and have the same networks."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from wildfern.launch.cluster.distributed import DistributedContext, said
from wildfern.launch.evaluation_data import evaluation_sources
from wildfern.recipes import Recipe
from wildfern.ssl.data import Source
from wildfern.ssl.data.image_source import ImageSource
from wildfern.ssl.evaluation.ranks import ALONE, Ranks

NAMES = 64  # of files that are compared, spread evenly


def sharing_ranks(
    recipe: Recipe,
    context: DistributedContext,
    sources: dict[str, tuple[Source, Source]],
    networks: Iterable[str],
    say: Callable[[str], None],
) -> Ranks | None:
    """All ranks; or rank 0 alone and None on the others, with a message that says why. Called on every rank.

    Opens the data sets of the recipe's evaluation where `sources` is empty, as it is on ranks other than 0, and adds them to it.
    They must have the same numbers of images, classes, labels and names of files everywhere, and the networks the same names.
    """
    if context.world_size == 1:
        return ALONE
    problem, found = None, None
    try:
        if not sources:
            sources.update(evaluation_sources(recipe.evaluation.on))
        found = {name: [_facts(source) for source in pair] for name, pair in sources.items()}, sorted(networks)
    except (ValueError, OSError) as error:
        problem = said(error, context.rank)
    everywhere = context.all_gather((problem, found))
    problems = [problem for problem, _ in everywhere if problem is not None]
    odd = [rank for rank, (_, facts) in enumerate(everywhere) if facts != everywhere[0][1]]
    if not problems and not odd:
        return context
    reason = problems[0] if problems else f"rank {odd[0]} does not have the same data sets and networks as rank 0"
    say(f"the ranks do not share the evaluation, rank 0 computes all features: {reason}")
    return ALONE if context.is_main else None


def _facts(source: Source) -> dict[str, Any]:
    labels = getattr(source, "labels", None)
    names = []
    if isinstance(source, ImageSource) and source.num_items:
        spread = np.linspace(0, source.num_items - 1, min(NAMES, source.num_items)).astype(int)
        names = [source.item_name(int(item)) for item in spread]
    return {
        "items": source.num_items,
        "classes": source.class_names,
        "labels": None if labels is None else hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest(),
        "names": names,
    }
