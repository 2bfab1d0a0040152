"""Test images in the report: confident mistakes, and nearest train images."""

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from wildfern.ssl.evaluation.report.classes import class_name
from wildfern.ssl.evaluation.report.image_details import ImageDetails, Neighbors, Predicted, Thumbnails
from wildfern.ssl.evaluation.report.parts import escape

MOST_MISTAKES = 24
MOST_QUERIES = 16
MOST_NEIGHBORS = 8
MOST_THUMBNAILS = 20_000
MOST_BYTES = 2**16  # of a thumbnail
MOST_SIDE = 512  # pixels


def usable_jpegs(found: Thumbnails | None) -> dict[int, str]:
    """The thumbnails, which may be of a stranger, in base64 by number of their image: those that are small JPEG files."""
    if found is None:
        return {}
    numbers = found.images[:MOST_THUMBNAILS].tolist()
    return {
        number: base64.b64encode(content).decode()
        for number, content in zip(numbers, found.files, strict=False)
        if is_small_jpeg(content)
    }


def is_small_jpeg(content: bytes) -> bool:
    """Whether it is a JPEG file of at most 64 KiB and 512 pixels a side; the pixels are not decoded."""
    if not content.startswith(b"\xff\xd8\xff") or len(content) > MOST_BYTES:
        return False
    try:
        with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return max(image.size) <= MOST_SIDE
    except Exception:  # Pillow documents no complete list of what a damaged file raises
        return False


def mistakes(details: ImageDetails, found: Predicted, thumbnails: Mapping[int, str]) -> str:
    """The wrong test images with the highest confidence of those that have a thumbnail; without confidences the first ones."""
    guesses = found.ranked[:, 0] if found.ranked.shape[1] else np.full(len(details), -1)
    wrong = np.flatnonzero((guesses != details.labels) & (details.labels >= 0))
    if found.confidence is not None:
        wrong = wrong[np.argsort(-found.confidence[wrong], kind="stable")]
    tiles = []
    for place in wrong.tolist():
        if len(tiles) == MOST_MISTAKES:
            break
        if place not in thumbnails:
            continue
        true = class_name(int(details.labels[place]), details.class_names)
        guess = class_name(int(guesses[place]), details.class_names) if guesses[place] >= 0 else "nothing"
        sure = "" if found.confidence is None else f" {float(found.confidence[place]):.0%}"
        said = f"{true}, taken for {guess}{sure}; image {int(details.items[place])}"
        words = f"<b class=down>{guess}</b>{sure}<small>is {true}</small>"
        tiles.append(f"<li>{_tile(thumbnails[place], said)}<span>{words}</span></li>")
    return f"<ol class=tiled>{''.join(tiles)}</ol>" if tiles else ""


def neighbors(
    details: ImageDetails, backbones: Sequence[str], thumbnails: Mapping[int, str], of_train: Mapping[int, str]
) -> str:
    """Test images, each with its nearest train images by backbone, in this order; those of the same class are framed."""
    found = details.neighbors
    if found is None or not found.items:
        return ""
    found = replace(found, items={name: found.items[name] for name in backbones if name in found.items})
    cards = []
    for number, place in enumerate(found.queries.tolist()):
        if len(cards) == MOST_QUERIES:
            break
        if place in thumbnails:
            cards.append("".join(_card(details, found, number, place, thumbnails, of_train)))
    return "".join(cards)


def _card(
    details: ImageDetails,
    found: Neighbors,
    number: int,
    place: int,
    thumbnails: Mapping[int, str],
    of_train: Mapping[int, str],
) -> Iterator[str]:
    label = int(details.labels[place])
    name = class_name(label, details.class_names) if label >= 0 else "no label"
    said = f"test image {int(details.items[place])}: {name}"
    yield f"<article class=query><div>{_tile(thumbnails[place], said)}<span><b>{name}</b></span></div><div>"
    for backbone, items in found.items.items():
        tiles = []
        for item, other in zip(items[number].tolist(), found.labels[backbone][number].tolist(), strict=True):
            if item in of_train and len(tiles) < MOST_NEIGHBORS:
                other_name = class_name(other, details.class_names) if other >= 0 else "no label"
                same = " class=same" * (label == other >= 0)
                tile = _tile(of_train[item], f"train image {item}: {other_name}")
                tiles.append(f"<li{same}>{tile}<span>{other_name}</span></li>")
        if tiles:
            yield f"<h4>{escape(backbone, 200)}</h4><ol class=tiled>{''.join(tiles)}</ol>"
    yield "</div></article>"


def _tile(jpeg: str, said: str) -> str:
    return f'<img alt="{said}" title="{said}" src="data:image/jpeg;base64,{jpeg}">'
