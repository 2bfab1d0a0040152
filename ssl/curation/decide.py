"""What happens to each image: every rule of a policy, marks made by hand, and takedowns."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.by_hand import MARKED, TAKEN_DOWN, judge_lookalikes, marked, one_of_each, taken_down
from wildfern.ssl.curation.duplicates import QUALITY, Copies, best_first, find_copies
from wildfern.ssl.curation.fault_rules import judge_faults
from wildfern.ssl.curation.feature_rules import ImageFeatures, judge_similar, select
from wildfern.ssl.curation.hash_pairs import MOST_PAIRS
from wildfern.ssl.curation.hierarchical_kmeans import Level
from wildfern.ssl.curation.image_table import ImageTable
from wildfern.ssl.curation.leaks import EvaluationImages
from wildfern.ssl.curation.learned_filter import FEWEST
from wildfern.ssl.curation.manifest import KEEP, REJECT, REVIEW
from wildfern.ssl.curation.policy import Policy, Selection
from wildfern.ssl.curation.spdx import matches
from wildfern.ssl.curation.takedowns import Takedown
from wildfern.ssl.curation.verdicts import Reason, Verdicts


@dataclass
class Decided:
    """Verdicts on all images, the groups of copies, the cluster of each, int32[N] (-1: none), and notes for the user.

    `levels`: of clusters, the lowest of the images `clustered`, int64[n].
    """

    verdicts: Verdicts
    copies: Copies
    cluster: NDArray[np.int32]
    notes: list[str] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    clustered: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def decide(
    images: ImageTable,
    policy: Policy,
    marks: Mapping[str, str] | None = None,
    takedowns: Sequence[Takedown] = (),
    *,
    features: ImageFeatures | None = None,
    evaluation: EvaluationImages | None = None,
) -> Decided:
    """Decide on all images. `marks`: keep or drop by SHA-256.

    Order: faults, license and reservations, people, copies (the best copy is one that passed so far), leaks, similar images,
    selection, caps. A mark decides over all of these, but a file that cannot be read is never kept, and nothing brings back what
    was taken down. Of several files with the bytes that are marked keep, one is kept. What is dropped by hand, shows people or
    was taken down, its copies follow.
    """
    verdicts, notes = Verdicts(len(images)), list[str]()
    judge_faults(images, policy, verdicts)
    _judge_licenses(images, policy, verdicts)
    if policy.license.allow and len(images) and not (images.codes("license") >= 0).any():
        notes.append("no image has a license that is known: a table with the license of each is named with --metadata")
    copies = find_copies(images, policy.near_duplicate, verdicts.strictness)
    if copies.bits < policy.near_duplicate.bits:
        notes.append(
            f"more than {MOST_PAIRS:,} pairs of hashes differ in at most {policy.near_duplicate.bits} bits, as of a camera that "
            f"stands still; copies were searched among "
            + (f"those that differ in at most {copies.bits}" if copies.bits >= 0 else "none but those of large groups")
        )
    _judge_people(images, policy, copies, verdicts)
    _judge_copies(images, policy, copies, verdicts)
    if evaluation is not None:
        _judge_leaks(images, policy, evaluation, verdicts)
    gone = taken_down(images, takedowns, copies)
    verdicts.add(TAKEN_DOWN, REJECT, list(gone))  # so that nothing is chosen among them
    judge_lookalikes(images, policy, takedowns, gone, verdicts)
    keep, drop = marked(images, marks or {}, copies)
    if unknown := len((marks or {}).keys() - set(images.texts("sha256"))):
        notes.append(f"marks of no image that was found: {unknown:,}")
    possible = [place for place in keep if images.readable[place] and place not in gone]
    if len(possible) < len(keep):
        notes.append(
            f"{len(keep) - len(possible):,} images marked keep stay out: they cannot be read, or were taken down"
        )
    keep = one_of_each(images, policy, possible, verdicts)
    cluster, levels, clustered = np.full(len(images), -1, np.int32), list[Level](), np.zeros(0, np.int64)
    if features is not None:
        order = best_first(images, verdicts.strictness)
        judge_similar(features, policy.similar, order, images.texts("path"), verdicts)
        by_image = dict.fromkeys(keep, "keep") | dict.fromkeys(drop, "drop")
        there = set(features.images.tolist())
        known = {place: mark for place, mark in by_image.items() if place in there}
        levels, clustered = select(features, _possible(policy.selection, known, notes), known, verdicts)
        without = verdicts.kept.copy()
        without[[*features.images.tolist(), *drop]] = False
        if without.any():
            notes.append(f"{int(without.sum()):,} kept images have no features, and were compared with none")
        if levels:
            cluster[clustered] = levels[0].of_item.numpy(force=True)
    _judge_caps(images, policy, cluster, verdicts, keep, drop, notes)
    for place in keep:
        verdicts.replace(place, Reason(MARKED, KEEP, detail="marked keep"))
    for place, words in drop.items():
        verdicts.replace(place, Reason(MARKED, REJECT, detail=words))
    for place, words in gone.items():
        verdicts.replace(place, Reason(TAKEN_DOWN, REJECT, detail=words))
    for place in np.flatnonzero(~images.readable & ~verdicts.rejected).tolist():  # whatever a policy says
        verdicts.replace(place, Reason("unreadable", REJECT, detail="cannot be read"))
    notes += _notes_on_copies(images, copies, verdicts)
    if policy.people.blur:
        blurred = verdicts.kept & (images.numbers("people") >= policy.people.review)
        notes.append(f"kept images in which faces or persons are blurred: {int(blurred.sum()):,}")
    return Decided(verdicts, copies, cluster, notes, levels, clustered)


def _possible(rule: Selection, marks: Mapping[int, str], notes: list[str]) -> Selection:
    """The selection without a filter, and a note, if there are too few marks to learn one from."""
    count = Counter(marks.values())
    if rule.filter is None or min(count["keep"], count["drop"]) >= FEWEST:
        return rule
    notes.append(
        f"selection.filter was not applied: there are {count['keep']} images marked keep and {count['drop']} marked drop, and it "
        f"learns from {FEWEST} or more of either kind; mark images in review.html"
    )
    return replace(rule, filter=None)


def _judge_licenses(images: ImageTable, policy: Policy, verdicts: Verdicts) -> None:
    rule = policy.license
    if rule.allow:
        licenses, texts = images.texts("license"), images.texts("license_text")
        allowed = {
            one: any(matches(one, pattern) for pattern in rule.allow) for one in set(licenses) if one is not None
        }
        unknown = [n for n, one in enumerate(licenses) if one is None]
        words = [f"license not known: {texts[n]}" if texts[n] else "no license" for n in unknown]
        verdicts.add("license", rule.unknown, unknown, details=words)
        other = [n for n, one in enumerate(licenses) if one is not None and not allowed[one]]
        words = [licenses[n] or "" for n in other]
        unversioned = ": without its version, which CC-BY-* and the like do not match"
        words = [one + unversioned if one.endswith("-unversioned") else one for one in words]
        verdicts.add("license", rule.action, other, details=words)
    reserved = images.texts("optout")
    found = [n for n, words in enumerate(reserved) if words]
    verdicts.add("optout", policy.optout.action, found, details=[reserved[n] or "" for n in found])


def _judge_people(images: ImageTable, policy: Policy, copies: Copies, verdicts: Verdicts) -> None:
    """By the highest score among the copies: a face is not gone because a smaller copy hides it from the detector.

    If faces are blurred, an image has to be examined itself.
    """
    rule = policy.people
    if rule.detector is None or rule.action == KEEP:
        return
    own = np.nan_to_num(images.numbers("people"), nan=-1.0)
    highest = np.full(len(images), -1.0)
    np.maximum.at(highest, copies.best, own)
    scores = own if rule.blur else highest[copies.best]
    unchecked = np.flatnonzero((scores < 0) & ~verdicts.rejected)
    verdicts.add("people", REVIEW, unchecked, details=["not examined by the detector"] * len(unchecked))
    if rule.blur:
        return
    found = np.flatnonzero(scores >= max(0.0, min(rule.review, rule.reject)))
    for action, some in (
        (rule.action, found[scores[found] >= rule.reject]),
        (REVIEW, found[scores[found] < rule.reject]),
    ):
        words = ["" if own[n] == scores[n] else "found in a copy of it" for n in some]
        verdicts.add("people", action, some, scores[some], words)


def _judge_copies(images: ImageTable, policy: Policy, copies: Copies, verdicts: Verdicts) -> None:
    others = np.flatnonzero(copies.best != np.arange(len(images)))
    paths = images.texts("path")
    for name, some in (
        ("exact_duplicate", others[copies.exact[others]]),
        ("near_duplicate", others[~copies.exact[others]]),
    ):
        values = copies.difference[some].astype(float)
        words = [f"copy of {paths[copies.best[n]]}" for n in some]
        verdicts.add(name, getattr(policy, name).action, some, values, words)


def _judge_leaks(images: ImageTable, policy: Policy, evaluation: EvaluationImages, verdicts: Verdicts) -> None:
    found: dict[int, tuple[float, int]] = {}
    for place, digest in enumerate(images.texts("pixels_sha256")):
        if digest in evaluation.digests:
            found[place] = 0.0, evaluation.digests[digest]
    featured = np.flatnonzero(images.readable & (images.numbers("phash_quality") >= QUALITY))
    small = images.read_small(featured)
    for place, number, value in zip(
        *evaluation.matches(images.hashes[featured], small, policy.near_duplicate), strict=True
    ):
        image = int(featured[place])
        found[image] = min(found.get(image, (np.inf, 0)), (float(value), int(number)))
    leaks = sorted(found)
    words = [f"also {evaluation.names[found[place][1]]}" for place in leaks]
    verdicts.add("leak", policy.leak.action, leaks, [found[place][0] for place in leaks], words)


def _notes_on_copies(images: ImageTable, copies: Copies, verdicts: Verdicts) -> list[str]:
    """What the user should know of kept images that are copies of each other, or that have copies under another license."""
    notes, kept = [], np.flatnonzero(verdicts.kept & (copies.group >= 0))
    counts = np.bincount(copies.group[kept], minlength=1)
    if several := int((counts[copies.group[kept]] > 1).sum()):
        notes.append(f"kept images that are copies of each other, as marks or the policy want it: {several:,}")
    licenses = images.codes("license")
    differs = np.zeros(len(counts), bool)
    first: dict[int, int] = {}
    for place in np.flatnonzero((copies.group >= 0) & (licenses >= 0)).tolist():
        group = int(copies.group[place])
        if group < len(differs):
            differs[group] |= first.setdefault(group, int(licenses[place])) != licenses[place]
    if other := int(differs[np.unique(copies.group[kept])].sum()):
        notes.append(
            f"kept images with copies under another license: {other:,}; that of the kept file was taken (review.html shows them)"
        )
    return notes


def _judge_caps(
    images: ImageTable,
    policy: Policy,
    cluster: NDArray[np.int32],
    verdicts: Verdicts,
    keep: Sequence[int],
    drop: Mapping[int, str],
    notes: list[str],
) -> None:
    """Leave out what is above the caps, among the images that are kept so far; those marked keep come first."""
    caps = policy.caps
    open_ = verdicts.kept.copy()
    open_[list(keep)] = True
    open_[list(drop)] = False
    first = np.ones(len(images), bool)
    first[list(keep)] = False
    order = _by_content(images, first)
    for name, most in (("author", caps.author), ("album", caps.album), ("cluster", caps.cluster)):
        if most is None:
            continue
        codes = cluster if name == "cluster" else images.codes(name)
        if unknown := int((open_ & (codes < 0)).sum()):
            notes.append(f"caps.{name}: {unknown:,} images have no {name} and are not capped")
        counts: dict[int, int] = {}
        over = []
        for place in order.tolist():
            code = int(codes[place])
            if open_[place] and code >= 0:
                counts[code] = counts.get(code, 0) + 1
                if counts[code] > most:
                    over.append(place)
        texts = map(str, cluster[over]) if name == "cluster" else (images.text(name, place) for place in over)
        words = [f"more than {most} of {name} {text}" for text in texts]
        verdicts.add("caps", "reject", over, details=words)
        open_[over] = False


def _by_content(images: ImageTable, last: NDArray[np.bool_]) -> NDArray[np.int64]:
    """All images in an order that depends on their content alone, as a draw by lot would; those in `last` behind the others."""
    lots = np.array(
        [
            int.from_bytes(hashlib.blake2b(f"caps {one}".encode(), digest_size=8).digest(), "big")
            for one in images.texts("sha256")
        ],
        np.uint64,
    )
    return np.lexsort((lots, last))
