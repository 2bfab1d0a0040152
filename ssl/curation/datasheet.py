"""A datasheet of a curated folder, after Gebru et al., "Datasheets for Datasets" (2021): what the manifest knows is filled in."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wildfern.printable import printable
from wildfern.ssl.curation.manifest import KEEP, Manifest

__all__ = ["BY_HAND", "PERCENTILES", "Summary", "datasheet"]

PERCENTILES = (0, 5, 50, 95, 100)
BY_HAND = "*To be answered by hand.*"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a manifest says of its images in numbers; all but the first six fields are of the kept images only.

    - sources: kind:name, without the folders above, which are not to be published.
    - images: all that were scanned. by_decision: "keep", "review" or "reject" → images.
    - by_reason: rule → action → images. policy: as resolved.
    - licenses: SPDX id → images, without the `unknown_licenses`. authors: how many different ones are named.
    - sizes: "width", "height" and "bytes" → the `PERCENTILES`. dates: the earliest and the latest, ISO 8601.
    - people_checked: how images were examined for people. people_unchecked: images that were not.
    - checked, not_checked: what else was examined, and what was not, of all images. notes: of the curation.
    - has_gps: files with coordinates in them. optout: images with a reservation against training, kept all the same.
    """

    name: str
    sources: list[str]
    images: int
    by_decision: Counter[str]
    by_reason: dict[str, Counter[str]]
    policy: Mapping[str, Any]
    licenses: Counter[str]
    unknown_licenses: int
    authors: int
    formats: Counter[str]
    sizes: dict[str, list[int]]
    dates: tuple[str, str] | None
    people_checked: list[str]
    people_unchecked: int
    checked: list[str]
    not_checked: list[str]
    notes: list[str]
    has_gps: int
    optout: int
    manifest_sha256: str
    wildfern: str
    date: str  # of the summary

    @property
    def kept(self) -> int:
        return self.by_decision[KEEP]

    @classmethod
    def of(cls, manifest: Manifest, date: str) -> "Summary":
        """Reads the manifest once, some thousand rows at a time; only the names of the authors are held."""
        decisions: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        found: dict[str, Counter[Any]] = {name: Counter() for name in (*_COUNTED, *_SIZES)}
        authors: set[str] = set()
        dates: set[str] = set()
        present: Counter[str] = Counter()
        for batch in manifest.batches(["decision", "reasons", "author", "date", *_COUNTED, *_SIZES, *_PRESENT]):
            decision = batch["decision"].cast(pa.string())
            decisions.update(_counts(decision))
            each = pc.list_flatten(batch["reasons"])
            rule, action = (pc.struct_field(each, name).fill_null("") for name in ("rule", "action"))
            reasons.update(_counts(pc.binary_join_element_wise(rule, action, "\n")))
            kept = batch.filter(pc.equal(decision, KEEP))
            for name, counts in found.items():
                counts.update(_counts(kept[name]))
            authors.update(pc.unique(kept["author"].drop_null()).to_pylist())
            if span := pc.min_max(kept["date"]).as_py()["min"]:
                dates |= {span, pc.max(kept["date"]).as_py()}
            present["has_gps"] += pc.sum(kept["has_gps"]).as_py() or 0
            present["optout"] += len(kept) - kept["optout"].null_count
            present["people"] += len(kept) - kept["people"].null_count
        by_reason: dict[str, Counter[str]] = {}
        for words, count in reasons.items():
            rule, action = words.rsplit("\n", 1)
            by_reason.setdefault(rule, Counter())[action] += count
        info = manifest.info
        unknown = found["license"].pop(None, 0)
        for counts in found.values():
            counts.pop(None, None)
        return cls(
            name=manifest.folder.resolve().name,
            sources=[_without_folders(source) for source in info.sources],
            images=len(manifest),
            by_decision=decisions,
            by_reason=by_reason,
            policy=info.policy,
            licenses=found["license"],
            unknown_licenses=unknown,
            authors=len(authors),
            formats=found["format"],
            sizes={name: _percentiles(found[name]) for name in _SIZES},
            dates=(min(dates), max(dates)) if dates else None,
            people_checked=sorted(found["people_checked"]),
            people_unchecked=decisions[KEEP] - present["people"],
            checked=list(info.checked),
            not_checked=list(info.not_checked),
            notes=list(info.notes),
            has_gps=present["has_gps"],
            optout=present["optout"],
            manifest_sha256=manifest.sha256,
            wildfern=info.wildfern,
            date=date,
        )


_COUNTED = ("license", "format", "people_checked")
_SIZES = ("width", "height", "bytes")
_PRESENT = ("has_gps", "optout", "people")


def datasheet(summary: Summary) -> str:
    """The datasheet as Markdown: each question in short, answered from the numbers or marked to be answered by hand."""
    lines = [
        f"# Datasheet of {_plain(summary.name)}",
        "",
        f"{_date_and_version(summary)} Manifest: SHA-256 `{summary.manifest_sha256}`.",
        "",
        'Questions after Gebru et al., "Datasheets for Datasets" (2021). The manifest answers what it knows, anew with each '
        "scan. The rest is to be written between the marks `<!-- answer -->` and `<!-- /answer -->`, and stays.",
    ]
    for section, questions in _sections(summary).items():
        lines += ["", f"## {section}"]
        for question, answer in questions:
            lines += ["", f"**{question}**", "", answer or BY_HAND]
    return "\n".join(lines) + "\n"


def _sections(summary: Summary) -> dict[str, list[tuple[str, str | None]]]:
    kept, left_out = summary.kept, summary.images - summary.kept
    return {
        "Motivation": [
            ("For what purpose was the dataset made?", None),
            ("Who made it, and for whom?", None),
            ("Who paid for it?", None),
        ],
        "Composition": [
            ("What are the instances?", f"Images, without labels. {BY_HAND}"),
            ("How many are there?", f"{kept:,}, of {summary.images:,} that were found.\n\n{_decisions(summary)}"),
            (
                "Is it a sample of a larger set?",
                f"{left_out:,} images were left out, by these rules:\n\n{_reasons(summary)}",
            ),
            ("What does an instance consist of?", _consists_of(summary)),
            ("Is there a label?", "None is used."),
            ("Is information missing?", _missing(summary)),
            ("Are relations between instances made explicit?", _relations(summary)),
            ("Are there recommended splits? Is it free of test images of others?", _leaks(summary)),
            ("Are there errors, noise or redundancies?", _examined(summary)),
            ("Is it self-contained?", "Yes. The manifest names each file, with the SHA-256 of its content."),
            ("Does it contain anything confidential?", None),
            ("Does it contain anything offensive or threatening?", f"Images were not examined for that. {BY_HAND}"),
            ("Does it show or concern people?", _people(summary)),
            ("Are subpopulations identified?", None),
            ("Can individuals be identified?", _identified(summary)),
            ("Does it contain anything sensitive?", None),
        ],
        "Collection process": [
            ("How was it acquired?", f"From {_listed(summary.sources)}. {BY_HAND}"),
            ("With what mechanisms, and how were they validated?", None),
            ("If it is a sample, how was it drawn?", f"By the rules below and no others.\n\n{_policy(summary)}"),
            ("Who collected it, and how were they paid?", None),
            ("Over what time?", _time(summary)),
            ("Was there an ethical review?", None),
            (
                "Was it collected from the people concerned, were they notified, did they consent, and can they revoke it?",
                None,
            ),
            ("Did authors reserve their rights?", _reserved(summary)),
            ("Was the impact on the people concerned analyzed?", None),
        ],
        "Preprocessing, cleaning, labeling": [
            ("What was done?", f"Files are not changed: the rules chose among them.{_blurred(summary)} {BY_HAND}"),
            (
                "Is the raw data kept?",
                "The images that were left out stay where they were, each with its reasons in the manifest.",
            ),
            (
                "Is the software available?",
                f"wildfern {_plain(summary.wildfern) or '(version not known)'}, Apache-2.0.",
            ),
        ],
        "Uses": [
            ("What was it used for?", None),
            ("Where are the uses listed?", None),
            ("What else could it be used for?", None),
            ("What of its composition matters for later uses?", f"The licenses, below. {BY_HAND}"),
            ("What should it not be used for?", None),
        ],
        "Distribution": [
            ("To whom, how and when is it distributed?", None),
            (
                "Under which license?",
                f"Each image has its own; the attribution file names it.\n\n{_licenses(summary)}\n\n{BY_HAND}",
            ),
            ("Do third parties or export controls restrict it?", None),
        ],
        "Maintenance": [
            ("Who maintains it, and how can they be reached?", None),
            ("Is there an erratum?", None),
            ("Will it be updated?", "An update has another SHA-256 of its manifest. " + BY_HAND),
            ("Until when may data of people be kept?", None),
            ("Will older versions be kept?", None),
            ("Can others extend it?", None),
            (
                "How can an image be taken down?",
                f"By its content: each later curation applies the takedowns. {BY_HAND}",
            ),
        ],
    }


def _date_and_version(summary: Summary) -> str:
    version = f" with wildfern {_plain(summary.wildfern)}" if summary.wildfern else ""
    return f"Written on {_plain(summary.date)}{version}."


def _decisions(summary: Summary) -> str:
    return _table(("decision", "images"), summary.by_decision.most_common())


def _reasons(summary: Summary) -> str:
    rows = [
        (rule, action, count)
        for rule, actions in sorted(summary.by_reason.items())
        for action, count in actions.most_common()
        if action != KEEP
    ]
    return _table(("rule", "action", "images"), rows) + "\n\nAn image may have several reasons."


def _consists_of(summary: Summary) -> str:
    formats = ", ".join(f"{_plain(name)} ({count:,})" for name, count in summary.formats.most_common())
    rows = [(name, *summary.sizes.get(name, [])) for name in _SIZES if summary.sizes.get(name)]
    head = ("", *(f"{one} %" for one in PERCENTILES))
    return f"An image file: {formats or 'of no known format'}. Percentiles of its size:\n\n{_table(head, rows)}"


def _missing(summary: Summary) -> str:
    return f"The license of {summary.unknown_licenses:,} images is not known. {summary.authors:,} different authors are named."


def _relations(summary: Summary) -> str:
    names = ("exact_duplicate", "near_duplicate", "similar")
    counts = [f"{name}: {sum(summary.by_reason[name].values()):,}" for name in names if name in summary.by_reason]
    return f"Duplicates share a number in the manifest ({', '.join(counts) or 'none was found'}); so do images of one album."


def _leaks(summary: Summary) -> str:
    leak = summary.policy.get("leak")
    against = leak.get("against") if isinstance(leak, Mapping) else None
    compared = f"Compared with {_listed(against)}." if against else "It was not compared with any evaluation set."
    return f"{compared} {BY_HAND}"


def _examined(summary: Summary) -> str:
    kinds = (("Checked", summary.checked), ("Not checked", summary.not_checked), ("Note", summary.notes))
    lines = [f"- {kind}: {_plain(words)}" for kind, found in kinds for words in found]
    return "\n".join([*lines, "", BY_HAND]) if lines else BY_HAND


def _people(summary: Summary) -> str:
    if not summary.people_checked:
        return f"Not checked: none of the images was examined for people. {BY_HAND}"
    return (
        f"Images were examined with {_listed(summary.people_checked)}; {summary.people_unchecked:,} were not. A detector misses "
        f"some people. {BY_HAND}"
    )


def _identified(summary: Summary) -> str:
    return (
        f"{summary.has_gps:,} files have coordinates in them, which the manifest does not copy. The manifest names "
        f"{summary.authors:,} authors. {BY_HAND}"
    )


def _time(summary: Summary) -> str:
    if summary.dates is None:
        return f"The images have no dates. {BY_HAND}"
    return f"Images that have a date are from {_plain(summary.dates[0])} to {_plain(summary.dates[1])}. {BY_HAND}"


def _reserved(summary: Summary) -> str:
    found = sum(summary.by_reason.get("optout", Counter()).values())
    return (
        f"{found:,} images were set aside for a reservation against training that was found in the file or its metadata; "
        f"{summary.optout:,} of those that are kept have one. Robots files and headers of websites are not known."
    )


def _blurred(summary: Summary) -> str:
    people = summary.policy.get("people")
    blur = isinstance(people, Mapping) and people.get("blur")
    return " Where people were found, they are blurred as an image is read." if blur else ""


def _licenses(summary: Summary) -> str:
    rows = [*summary.licenses.most_common()]
    return _table(
        ("license", "images"), [*rows, ("not known", summary.unknown_licenses)] if summary.unknown_licenses else rows
    )


def _policy(summary: Summary) -> str:
    rows = []
    for name, rule in summary.policy.items():
        if isinstance(rule, Mapping):
            settings = ", ".join(f"{key}: {_value(value)}" for key, value in rule.items() if key != "action")
            rows.append((name, rule.get("action", ""), settings))
    return _table(("rule", "action", "settings"), rows)


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    first, *others = [" | ".join(map(_plain, line)) for line in (head, *rows)]
    if not others:
        return "None."
    return "\n".join(f"| {line} |" for line in (first, " | ".join(["---"] * len(head)), *others))


def _listed(texts: Iterable[object]) -> str:
    return ", ".join(map(_plain, texts)) or "nothing"


def _plain(value: object) -> str:
    """Text of strangers, which Markdown must not obey; numbers with commas."""
    if isinstance(value, int):
        return f"{value:,}"
    return "".join(f"\\{one}" if one in "\\`*_{}[]<>#|!~$" else one for one in printable(value))


def _without_folders(source: str) -> str:
    kind, colon, path = source.partition(":")
    return kind + colon + path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _counts(column: Any) -> Counter[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    return Counter({one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()})


def _percentiles(counts: Counter[int]) -> list[int]:
    """The `PERCENTILES` of values with their counts, by nearest rank."""
    total, found, seen = sum(counts.values()), [], 0
    ranks = [max(1, -(-total * percentile // 100)) for percentile in PERCENTILES]
    for value, count in sorted(counts.items()):
        seen += count
        found += [value] * sum(seen - count < rank <= seen for rank in ranks)
    return found
