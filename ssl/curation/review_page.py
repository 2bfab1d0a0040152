"""A self-contained HTML page to review a curated folder: what was kept, put aside and rejected, why, and buttons to mark images.

It is opened from disk and loads nothing: its Content-Security-Policy allows only its own script and embedded images.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from wildfern.ssl.curation.manifest import KEEP, REJECT, REVIEW
from wildfern.ssl.curation.review_script import SCRIPT
from wildfern.ssl.curation.review_style import REVIEW_STYLE, WITHOUT_SCRIPT
from wildfern.ssl.curation.treemap import ClusterTile, treemap
from wildfern.ssl.evaluation.report.parts import escape, section, table
from wildfern.ssl.evaluation.report.style import STYLE
from wildfern.ssl.evaluation.report.thumbnails import Thumbnail

DECISIONS = {KEEP: "kept", REVIEW: "review", REJECT: "rejected"}
ACTIONS = {**DECISIONS, KEEP: "only measured"}  # of a rule


@dataclass(frozen=True)
class Shown:
    """An image on the page; texts may be of strangers.

    - sha256: of the file; empty for one that cannot be read, which no mark brings back.
    - value: its score by the rule that it is shown for, if that has one.
    """

    sha256: str
    path: str
    thumbnail: Thumbnail
    decision: str
    value: float | None
    detail: str
    width: int
    height: int
    bytes: int
    license: str | None
    author: str | None


@dataclass(frozen=True)
class Sheet:
    """The contact sheet of a reason.

    - words: what the rule means. action_counts: images by action. total: of the reason, of which `items` are shown.
    - items: sorted by value, ascending or descending; value_name: the value in words.
    """

    rule: str
    words: str
    action_counts: Mapping[str, int]
    total: int
    ascending: bool
    value_name: str
    items: Sequence[Shown]


@dataclass(frozen=True)
class DuplicateGroup:
    kept: Shown
    others: Sequence[Shown]


@dataclass(frozen=True)
class Near:
    """Images whose value is near a threshold, sorted by value. `name`: of the threshold, for example "people: reject"."""

    threshold: float
    name: str
    items: Sequence[Shown]


@dataclass(frozen=True)
class About:
    """What the page says about the curated folder; texts may be of strangers.

    - images: how many in all. decisions: of them by decision. reasons: of them by rule, in the order of the table.
    - people_words: what was checked for people, and what was not. command: applies the downloaded marks.
    """

    title: str
    sources: Sequence[str]
    policy_name: str
    images: int
    decisions: Mapping[str, int]
    reasons: Mapping[str, int]
    people_words: str
    manifest_sha256: str
    command: str
    notes: Sequence[str] = ()


def review_page(
    about: About,
    sheets: Sequence[Sheet],
    groups: Sequence[DuplicateGroup],
    near: Sequence[Near],
    clusters: Sequence[ClusterTile],
) -> str:
    """The page. Sheets, groups and images are shown in the order given."""
    nodes, uris = treemap(clusters)
    paths: dict[str, str] = {}
    shown: list[Sequence[Shown]] = [sheet.items for sheet in sheets]
    shown += [(group.kept, *group.others) for group in groups]
    shown += [one.items for one in near]
    for one in chain.from_iterable(shown):
        if one.sha256:
            paths.setdefault(one.sha256, one.path)
    data = {"manifest": about.manifest_sha256, "images": list(paths.items()), "clusters": nodes, "thumbnails": uris}
    body = [
        _header(about),
        _notes(about),
        section("Reasons", _reasons(about, sheets)),
        section("Contact sheets", "".join(_sheet(sheet, number) for number, sheet in enumerate(sheets))),
        section("Duplicates", _groups(groups) if groups else ""),
        section("Near the thresholds", "".join(_near(one) for one in near if one.items)),
        section("Clusters", _clusters(clusters) if clusters else ""),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_security_policy()}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(about.title)}: review – wildfern</title><style>{STYLE}{REVIEW_STYLE}</style>"
        f"<noscript><style>{WITHOUT_SCRIPT}</style></noscript></head>\n"
        f"<body><main>{''.join(body)}</main>{_FOOTER}"
        f'<script type="application/json" id=data>{_script_json(data)}</script>\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


_FOOTER = (
    "<footer class=footer><div><output id=count></output><span id=focused></span>"
    "<span id=lost hidden>Marks are not stored: download them before closing.</span>"
    "<button id=download disabled>Download marks.csv</button><button id=clear disabled>Clear</button></div></footer>\n"
)
_MARK_ALL = "<button data-all=keep>keep</button><button data-all=drop>drop</button><button data-all=''>unmark</button>"


def _security_policy() -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _script_json(value: Any) -> str:
    """JSON that stays inside a script element: without <, > and &, in ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _header(about: About) -> str:
    figures, shares = [f"<li class=all><b>{about.images:,}</b><span>files</span></li>"], []
    for decision, words in DECISIONS.items():
        count = about.decisions.get(decision, 0)
        percent = 100 * count / about.images if about.images else 0.0
        figures.append(f"<li class={decision}><b>{count:,}</b><span>{words}, {percent:.1f} %</span></li>")
        if count:
            shares.append(f"<i class={decision} style='flex-grow:{count}'></i>")
    return (
        f"<header><p class=kicker>wildfern curation</p><h1>{escape(about.title)}</h1>"
        f"<p class=lead>{escape(', '.join(about.sources))} · policy {escape(about.policy_name)}</p>"
        f"<ul class=figures>{''.join(figures)}</ul><div class=shares aria-hidden=true>{''.join(shares)}</div></header>"
    )


def _notes(about: About) -> str:
    notes = "".join(f"<div>{escape(note)}</div>" for note in about.notes)
    return (
        f"<div class='note unchecked'><div>{escape(about.people_words)}</div>{notes}</div>"
        "<div class=note><div>Mark images that were decided wrongly: <b>keep</b> or <b>drop</b>. With the keyboard: "
        "focus an image, then <kbd>k</kbd> keep, <kbd>d</kbd> drop, <kbd>u</kbd> unmark, arrow keys to move. An image has one "
        "mark, wherever it is shown. Then download marks.csv and run:</div>"
        f"<pre>{escape(about.command)}</pre></div>"
        "<noscript><p class=note>Marks and the treemap need JavaScript, which is off in this browser.</p></noscript>"
    )


def _reasons(about: About, sheets: Sequence[Sheet]) -> str:
    places = {sheet.rule: (number, sheet) for number, sheet in enumerate(sheets)}
    rows = []
    for rule, count in about.reasons.items():
        name, words, actions = escape(rule), "", "<td class=num>–</td>" * len(ACTIONS)
        if rule in places:
            number, sheet = places[rule]
            name, words = f"<a href='#sheet-{number}'>{name}</a>", escape(sheet.words)
            actions = "".join(f"<td class=num>{sheet.action_counts.get(action, 0):,}</td>" for action in ACTIONS)
        rows.append(
            f"<tr class=first><td>{name}</td><td class=meaning>{words}</td>{actions}<td class=num>{count:,}</td></tr>"
        )
    if not rows:
        return "<p class=lead>No image has a reason against it.</p>"
    head = ("reason", "<span class=meaning>meaning</span>", *ACTIONS.values(), "images")
    note = "<p class=about>An image can have several reasons; the strictest decides.</p>"
    return table(head, rows, numbers=len(ACTIONS) + 1) + note


def _sheet(sheet: Sheet, number: int) -> str:
    counts = [(sheet.action_counts.get(action, 0), words) for action, words in ACTIONS.items()]
    actions = ", ".join(f"{count:,} {words}" for count, words in counts if count)
    shown = len(sheet.items)
    count = f"all {shown:,}" if shown == sheet.total else f"{shown:,} of {sheet.total:,}"
    order = ""
    if any(one.value is not None for one in sheet.items):
        order = f", by {escape(sheet.value_name)}, {'lowest' if sheet.ascending else 'highest'} first"
    marks = f"<p class=all-of>Mark all of this sheet: {_MARK_ALL}</p>" if any(one.sha256 for one in sheet.items) else ""
    return (
        f"<details class=sheet id=sheet-{number}{' open' * (number == 0)}><summary><b>{escape(sheet.rule)}</b> "
        f"<span>{actions or _count(sheet.total)}</span></summary><div>"
        f"<p class=about>{escape(sheet.words)} · {count} shown{order}</p>"
        f"{marks}{_tiles(map(_tile, sheet.items))}</div></details>"
    )


def _groups(groups: Sequence[DuplicateGroup]) -> str:
    cards = []
    for group in groups:
        copies = (group.kept, *group.others)
        tiles = [_tile(one, _differences(one, group.kept, copies)) for one in copies]
        cards.append(f"<article class=group>{_tiles(tiles)}</article>")
    words, count = _count(len(groups), "group"), sum(1 + len(group.others) for group in groups)
    return (
        f"<details class=sheet><summary><b>{words}</b> <span>{_count(count)}</span></summary><div>"
        "<p class=about>The copy that stands for the others comes first; what differs from it is bold. Files with the same "
        f"bytes share a mark.</p><div class=groups>{''.join(cards)}</div></div></details>"
    )


def _near(near: Near) -> str:
    tiles, above, threshold = [], None, _number(near.threshold)
    for one in near.items:
        now = one.value is not None and one.value >= near.threshold
        if above is not None and now != above:
            tiles.append(f"<li class=threshold>threshold {threshold}</li>")
        above = now
        tiles.append(_tile(one))
    return f"<h3>{escape(near.name)}: {_count(len(near.items))} around {threshold}</h3>{_tiles(tiles)}"


def _clusters(clusters: Sequence[ClusterTile]) -> str:
    return (
        f"<p class=about>{_count(sum(cluster.size for cluster in clusters))} in {_count(len(clusters), 'cluster')}. An area is "
        "proportional to the number of images. Click a cluster to enlarge it; Escape goes back.</p><div id=treemap>"
        "<nav id=trail class=trail aria-label='open clusters'></nav><div id=stage class=stage></div></div>"
    )


def _tiles(tiles: Iterable[str]) -> str:
    """A grid of tiles, the first of which the tabulator key reaches."""
    return f"<ol class=tiles>{''.join(tiles).replace(' tabindex=-1', ' tabindex=0', 1)}</ol>"


def _tile(one: Shown, compared: str = "") -> str:
    """`compared`: lines in HTML, of how it differs from another image."""
    decision = one.decision if one.decision in DECISIONS else ""
    words = f"<span class='decision {decision}'>{DECISIONS.get(one.decision) or escape(one.decision)}</span>"
    value = "" if one.value is None else f"<b>{_number(one.value)}</b>"
    name = escape(PurePosixPath(one.path).name or one.path)
    lines = [f"<div class=first>{value}{words}</div><div class=name>{name}</div>{compared}"]
    if one.detail:
        lines.append(f"<div class=detail>{escape(one.detail)}</div>")
    kind = " class=pixels" * one.thumbnail.uri.startswith("data:image/png")
    return (
        f'<li><div class=tile role=group tabindex=-1 data-sha256="{escape(one.sha256)}" title="{_title(one)}">'
        f'<div class=image><img{kind} alt="" loading=lazy src="{one.thumbnail.uri}"></div>{"".join(lines)}'
        "<div class=marks><button class=keep data-do=keep tabindex=-1 aria-pressed=false>keep</button>"
        "<button class=reject data-do=drop tabindex=-1 aria-pressed=false>drop</button></div></div></li>"
    )


def _differences(one: Shown, kept: Shown, copies: Sequence[Shown]) -> str:
    """The properties of a copy; what differs from the kept one is marked. Rights are left out where no copy has any."""
    parts = zip(_properties(one), _properties(kept), strict=True)
    lines = [" · ".join(_compared(mine, other) for mine, other in parts if mine)]
    if any(copy.license for copy in copies):
        lines.append(_compared(*(copy.license or "license unknown" for copy in (one, kept))))
    if any(copy.author for copy in copies):
        lines.append(_compared(*(f"by {copy.author}" if copy.author else "author unknown" for copy in (one, kept))))
    first, *rights = lines
    return f"<div>{first}</div>" + "".join(f"<div class=detail>{line}</div>" for line in rights)


def _compared(mine: str, other: str) -> str:
    return f"<i{' class=differs' * (mine != other)}>{escape(mine)}</i>"


def _title(one: Shown) -> str:
    rights = (one.license or "license unknown") + (f", by {one.author}" if one.author else "")
    lines = (one.path, f"{one.width:,} × {one.height:,} pixels, {_size(one.bytes)}", rights, one.detail)
    return escape("\n".join(filter(None, lines)))


def _properties(one: Shown) -> tuple[str, str, str]:
    return f"{one.width:,} × {one.height:,}", _size(one.bytes), PurePosixPath(one.path).suffix[1:].lower()


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1000:.3g} kB" if size < 999_500 else f"{size / 1e6:,.1f} MB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.3g}"


def _count(count: int, word: str = "image") -> str:
    return f"1 {word}" if count == 1 else f"{count:,} {word}s"
