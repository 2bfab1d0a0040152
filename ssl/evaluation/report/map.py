"""A map of test images in the report: positions, classes, predictions and groups for the script that draws it."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.evaluation.report.classes import class_name
from wildfern.ssl.evaluation.report.image_details import ImageDetails
from wildfern.ssl.evaluation.report.parts import escape, folded, json_script, shown, table
from wildfern.ssl.evaluation.report.positions import Embedding, positions

MOST_IMAGES = 50_000
MOST_COMPONENTS = 50
MOST_BACKBONES = 4
MOST_PREDICTIONS = 12  # of a protocol and a backbone
MOST_GROUPS = 8
MOST_NAMES = 10_000  # of classes
MOST_THUMBNAILS = 4 * 2**20  # characters of all together
TABLE_CLASSES = 20
LARGEST = 2**16 - 1  # positions and numbers of classes are sent as uint16


def map_figure(
    details: ImageDetails, backbones: Sequence[str], thumbnails: Mapping[int, str], embedding: Embedding
) -> str:
    """The figure, as HTML; `backbones` in the order of the choice. Nothing without features of at least three images."""
    places = details.map_images
    features = {
        name: rows[:MOST_IMAGES, :MOST_COMPONENTS] for name, rows in details.map_features.items() if rows.shape[1]
    }
    named = [name for name in backbones if name in features][:MOST_BACKBONES]
    if places is None or len(places) < 3 or not named:
        return ""
    places = places[:MOST_IMAGES]
    computed = {name: positions(features[name], embedding) for name in named}
    left = MOST_THUMBNAILS
    images = {}
    for number, place in enumerate(places.tolist()):
        if place in thumbnails and len(thumbnails[place]) <= left:
            images[number] = thumbnails[place]
            left -= len(thumbnails[place])
    names = details.class_names or ()
    order = {name: place for place, name in enumerate(backbones)}
    predictions = sorted(details.predictions.items(), key=lambda item: order.get(item[0][1], len(order)))
    data: dict[str, Any] = {
        "count": len(places),
        "items": _packed(details.items[places], np.uint32),
        "labels": _packed(details.labels[places] + 1, np.uint16),
        "names": [shown(name, 100) for name in names[:MOST_NAMES]],
        "backbones": [
            {"name": shown(name, 100), "words": found.words, "points": _scaled(found.points)}
            for name, found in computed.items()
        ],
        "predictions": [
            {
                "protocol": shown(protocol, 100),
                "backbone": shown(backbone, 100),
                "guesses": _packed(found.ranked[places, 0] + 1, np.uint16),
            }
            for (protocol, backbone), found in predictions[:MOST_PREDICTIONS]
            if found.ranked.shape[1]
        ],
        "groups": [
            {
                "name": shown(name, 100),
                "codes": _packed(codes[places] + 1, np.uint16),
                "names": [shown(one, 100) for one in of_column[:MOST_NAMES]],
            }
            for name, (codes, of_column) in list(details.groups.items())[:MOST_GROUPS]
        ],
        "thumbnails": images,
    }
    classes = len(np.unique(details.labels[places]))
    ways = dict.fromkeys(found.words.split(" (")[0] for found in computed.values())
    said = f"{len(places):,} test images of {classes:,} classes, by {', '.join(ways)}"
    return (
        f"<figure class=map><div class=stage data-label='Map of {escape(said)}'></div>{json_script(data)}"
        f"<noscript>This map of {escape(said)} needs JavaScript.</noscript>"
        f"{folded('table', _centers(details, places, {name: one.points for name, one in computed.items()}))}</figure>"
    )


def _packed(values: NDArray[np.int64], kind: type) -> str:
    """Little-endian, in base64; what does not fit is 0: unknown."""
    fits = (values >= 0) & (values <= np.iinfo(kind).max)
    return base64.b64encode(np.where(fits, values, 0).astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def _scaled(points: NDArray[np.float64]) -> str:
    """x, y, x, y … as uint16 in a square that has them all, in base64; x and y have one scale."""
    low, high = points.min(0), points.max(0)
    extent = max(float((high - low).max()), 1e-12)
    centered = (points - (low + high) / 2) / extent + 0.5
    return _packed(np.rint(centered * LARGEST).clip(0, LARGEST).astype(np.int64).ravel(), np.uint16)


def _centers(details: ImageDetails, places: NDArray[np.int64], points: Mapping[str, NDArray[np.float64]]) -> str:
    """Of the classes with the most images, the mean position."""
    labels, counts = np.unique(details.labels[places], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:TABLE_CLASSES]
    rows = []
    for label, count in zip(labels[order].tolist(), counts[order].tolist(), strict=True):
        of_class = details.labels[places] == label
        centers = (found[of_class].mean(0) for found in points.values())
        cells = "".join(f"<td class=num>{x:.3g}, {y:.3g}</td>" for x, y in centers)
        name = class_name(label, details.class_names) if label >= 0 else "no label"
        rows.append(f"<tr><th scope=row>{name}</th><td class=num>{count:,}</td>{cells}</tr>")
    head = ("class", "images", *(f"center, {escape(name, 100)}" for name in points))
    return table(head, rows, numbers=1 + len(points), caption="Where the classes are on the map")
