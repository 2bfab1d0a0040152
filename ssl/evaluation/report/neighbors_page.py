"""A self-contained HTML page of nearest neighbors: for each query a row of images by network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wildfern.ssl.evaluation.report.neighbors import Found, Neighbors
from wildfern.ssl.evaluation.report.parts import escape, section, table
from wildfern.ssl.evaluation.report.style import STYLE
from wildfern.ssl.evaluation.report.thumbnails import Thumbnail

NEIGHBORS_STYLE = """
.query { display: grid; grid-template-columns: 8.5rem minmax(0, 1fr); gap: .4rem 1.4rem; padding: 1rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin-top: 1rem; }
.query h3 { margin: 0 0 .35rem; color: var(--soft); font-weight: 500; font-size: .82rem; }
.row + .row { margin-top: .9rem; }
.row ol { display: flex; flex-wrap: wrap; gap: .5rem; margin: 0; padding: 0; list-style: none; }
.row li { width: 6.2rem; }
.tile { width: 100%; aspect-ratio: 1; padding: 2px; border: 2px solid transparent; border-radius: 6px; background: var(--page); }
.tile img { width: 100%; height: 100%; object-fit: contain; border-radius: 2px; }
.tile img.pixels { image-rendering: pixelated; }
.agrees .tile { border-color: var(--up); }
.words-below { display: block; font-size: .75rem; line-height: 1.35; color: var(--soft); font-variant-numeric: tabular-nums;
  max-height: 4.1em; overflow: hidden; }
.agrees .words-below b { color: var(--up); } .words-below b { font-weight: 600; }
.legend-below { margin: .7rem 0 0; color: var(--soft); font-size: .92rem; }
@media (max-width: 56rem) {
  .query { grid-template-columns: 1fr; padding: .8rem; }
  .query > div:first-child { max-width: 6rem; }
  .row ol { gap: .4rem; }
  .row li { width: calc((100% - 1.2rem) / 4); }
}
@media print { .query { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class About:
    """What the page says about its images and networks; texts may be of strangers.

    `of`: how many images those of the bank are spread over. `network`: the backbone in words.
    """

    title: str
    run: str
    source: str
    network: str
    of: int
    unreadable: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def neighbors_page(neighbors: Neighbors, images: int, thumbnails: Mapping[int, Thumbnail], about: About) -> str:
    """The page. `images`: those of the bank; `thumbnails` of all places in it that are shown."""
    body = [
        f"<header><p class=kicker>wildfern neighbors</p><h1>{escape(about.title)}</h1>"
        f"<p class=lead>{escape(about.run)}</p></header>",
        _summary(neighbors, images, thumbnails, about),
        section("Images and their neighbors", "".join(_queries(neighbors, thumbnails))),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(about.title)}: neighbors – wildfern</title><style>{STYLE}{NEIGHBORS_STYLE}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _summary(neighbors: Neighbors, images: int, thumbnails: Mapping[int, Thumbnail], about: About) -> str:
    k = next(iter(neighbors.found.values())).places.shape[1]
    count = f"{images:,} images" if images == about.of else f"{images:,} of {about.of:,} images, spread evenly,"
    queries = len(neighbors.queries)
    what = f"{queries} images, each with its" if queries > 1 else "1 image with its"
    lines = [
        f"<p>{count} of {escape(about.source)}. Below {what} {_nearest(k)} among the others by cosine similarity of the "
        f"frozen features of {escape(about.network)}. A network sees the central square of an image. Similarities of "
        "two networks cannot be compared: look at the images.</p>"
    ]
    if neighbors.chance is not None:
        rows = [
            f"<tr><td>{escape(name)}</td><td class=num>{100 * (found.share or 0):.1f} %</td></tr>"
            for name, found in neighbors.found.items()
        ] + [
            f"<tr class=baseline><td>any other image (chance)</td><td class=num>{100 * neighbors.chance:.1f} %</td></tr>"
        ]
        lines.append(table(("network", "neighbors with the image's label"), rows, numbers=1))
        whose = "all" if neighbors.scored == images else f"{neighbors.scored:,}"
        lines.append(
            f"<p class=legend-below>Means over {whose} labeled images and their {_nearest(k)}. A green frame and ✓ mark a "
            "neighbor with the label of the query.</p>"
        )
    remarks = [*map(escape, about.notes), *_copies(neighbors, thumbnails)]
    if unreadable := about.unreadable:
        names = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in list(unreadable.items())[:5])
        more = f"<li>… and {len(unreadable) - 5:,} more</li>" * (len(unreadable) > 5)
        word = "1 image" if len(unreadable) == 1 else f"{len(unreadable):,} images"
        remarks.append(
            f"{word} could not be used and {'is' if len(unreadable) == 1 else 'are'} left out:<ul>{names}{more}</ul>"
        )
    if remarks:
        lines.append(f"<div class=note>{''.join(f'<div>{remark}</div>' for remark in remarks)}</div>")
    return section("Summary", "".join(lines))


def _nearest(k: int) -> str:
    return f"{k} nearest neighbors" if k > 1 else "nearest neighbor"


def _copies(neighbors: Neighbors, thumbnails: Mapping[int, Thumbnail]) -> list[str]:
    """A remark if neighbors of the first network look like copies of their queries: then the others say more."""
    places = next(iter(neighbors.found.values())).places
    copies = sum(
        thumbnails[query].looks_like(thumbnails[place])
        for query, row in zip(neighbors.queries.tolist(), places.tolist(), strict=True)
        for place in row
    )
    if not copies:
        return []
    what = "1 neighbor looks" if copies == 1 else f"{copies} neighbors look"
    return [f"{what} like a copy of the query, pixel by pixel, marked =: it says little about the network."]


def _queries(neighbors: Neighbors, thumbnails: Mapping[int, Thumbnail]) -> list[str]:
    cards = []
    for number, query in enumerate(neighbors.queries.tolist()):
        rows = "".join(_row(neighbors, number, name, found, thumbnails) for name, found in neighbors.found.items())
        label = neighbors.label(query)
        words = f"<span class=words-below><b>{escape(label)}</b></span>" if label else ""
        cards.append(
            f"<article class=query><div><h3>query</h3>{_tile(thumbnails[query])}{words}</div><div>{rows}</div></article>"
        )
    return cards


def _row(neighbors: Neighbors, number: int, name: str, found: Found, thumbnails: Mapping[int, Thumbnail]) -> str:
    query, tiles = int(neighbors.queries[number]), []
    for place, similarity in zip(found.places[number].tolist(), found.similarity[number].tolist(), strict=True):
        agrees, label = neighbors.agrees(query, place), neighbors.label(place)
        copy = " <span title='looks like a copy of the query'>=</span>" * thumbnails[query].looks_like(
            thumbnails[place]
        )
        words = f"{similarity:.3f}{copy}" + (f"<br><b>{'✓ ' * agrees}{escape(label)}</b>" if label else "")
        tiles.append(
            f"<li{' class=agrees' * agrees}>{_tile(thumbnails[place])}<span class=words-below>{words}</span></li>"
        )
    return f"<div class=row><h3>{escape(name)}</h3><ol>{''.join(tiles)}</ol></div>"


def _tile(image: Thumbnail) -> str:
    kind = " class=pixels" * image.uri.startswith("data:image/png")
    name = escape(image.name)
    return f'<div class=tile><img{kind} alt="{name}" title="{name}" loading=lazy src="{image.uri}"></div>'
