"""What people decided: marks made on the review page, and takedowns."""

from collections.abc import Mapping, Sequence

import numpy as np

from wildfern.ssl.curation.duplicates import QUALITY, Copies, best_first
from wildfern.ssl.curation.hash_pairs import hash_pairs
from wildfern.ssl.curation.image_table import ImageTable
from wildfern.ssl.curation.manifest import KEEP, REVIEW
from wildfern.ssl.curation.policy import Policy
from wildfern.ssl.curation.takedowns import Takedown
from wildfern.ssl.curation.verdicts import Verdicts

TAKEN_DOWN, MARKED = "taken_down", "marked"  # rules that are in no policy


def marked(images: ImageTable, marks: Mapping[str, str], copies: Copies) -> tuple[list[int], dict[int, str]]:
    """Images marked keep, and those marked drop with why; copies of a dropped image are dropped, unless they are marked keep."""
    if not marks:
        return [], {}
    digests = images.texts("sha256")
    by_mark: dict[str, list[int]] = {"keep": [], "drop": []}
    for place, digest in enumerate(digests):
        if digest is not None and digest in marks:
            by_mark[marks[digest]].append(place)
    drop = {place: "marked drop" for place in by_mark["drop"]}
    groups = {int(copies.best[place]) for place in drop}
    if groups:
        kept = set(by_mark["keep"])
        for place in np.flatnonzero(np.isin(copies.best, list(groups))).tolist():
            if place not in kept:
                drop.setdefault(place, "a copy of it is marked drop")
    return by_mark["keep"], drop


def one_of_each(images: ImageTable, policy: Policy, keep: Sequence[int], verdicts: Verdicts) -> list[int]:
    """Of the images marked keep one for each content, the one that the rules like best; the others are copies of it.

    A mark is of a content, and its files may have different licenses.
    """
    place_in = {place: n for n, place in enumerate(best_first(images, verdicts.strictness).tolist())}
    digests, paths = images.texts("sha256"), images.texts("path")
    chosen: dict[str | None, int] = {}
    others = []
    for place in sorted(keep, key=place_in.__getitem__):
        if chosen.setdefault(digests[place], place) != place:
            known = any(reason.rule == "exact_duplicate" for reason in verdicts.reasons.get(place, ()))
            others += [] if known else [place]
    if policy.exact_duplicate.action == KEEP:
        return list(keep)
    words = [f"copy of {paths[chosen[digests[place]]]}, which is marked keep" for place in others]
    verdicts.add("exact_duplicate", policy.exact_duplicate.action, others, [0.0] * len(others), words)
    return sorted(chosen.values())


def taken_down(images: ImageTable, takedowns: Sequence[Takedown], copies: Copies) -> dict[int, str]:
    """What was taken down, by the digests of file and pixels, and all its copies: image -> reason."""
    if not takedowns:
        return {}
    digests = {one.sha256: one for one in takedowns} | {
        one.pixels_sha256: one for one in takedowns if one.pixels_sha256
    }
    own: dict[int, Takedown] = {}
    for column in ("sha256", "pixels_sha256"):
        for place, digest in enumerate(images.texts(column)):
            if digest in digests:
                own.setdefault(place, digests[digest])
    groups = {int(copies.best[place]): taken for place, taken in own.items()}
    gone = {}
    for place in np.flatnonzero(np.isin(copies.best, list(groups))).tolist():
        taken = own.get(place) or groups[int(copies.best[place])]
        gone[place] = taken.reason if place in own else f"copy of an image taken down ({taken.reason})"
    return gone


def judge_lookalikes(
    images: ImageTable,
    policy: Policy,
    takedowns: Sequence[Takedown],
    gone: Mapping[int, str],
    verdicts: Verdicts,
) -> None:
    """What may be another copy of an image that was taken down, by its hash alone, is to be reviewed."""
    hashed = [one for one in takedowns if one.phash is not None]
    if not hashed:
        return
    there = np.flatnonzero(images.readable & (images.numbers("phash_quality") >= QUALITY))
    former = np.array([one.phash for one in hashed], np.uint64)
    pairs = hash_pairs(images.hashes[there], policy.near_duplicate.bits, former)
    for place, number in dict(pairs.tolist()).items():  # once each
        image = int(there[place])
        if image not in gone:
            verdicts.add(
                TAKEN_DOWN, REVIEW, [image], details=[f"looks like {hashed[number].path}, which was taken down"]
            )
