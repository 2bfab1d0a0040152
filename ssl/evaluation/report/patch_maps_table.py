"""The table of PCA and attention maps in the report: a row for each test image, a block of columns for each backbone."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wildfern.ssl.evaluation.report.classes import class_name
from wildfern.ssl.evaluation.report.image_details import ImageDetails, PatchMaps
from wildfern.ssl.evaluation.report.parts import escape

MOST_IMAGES = 8
MOST_BACKBONES = 8
PCA_WORDS = (
    "PCA: red, green and blue are the first three principal components of the patch tokens of these images together (of the last "
    "feature map, for networks without such tokens). Similar colors in one column are similar tokens; colors of two networks "
    "cannot be compared, and a clear map does not prove good features: read the scores."
)
ATTENTION_WORDS = (
    "Attention: from the class token to the patches in the last block, mean over heads, white at the largest of each image. "
    "It shows where the token reads, not why an image gets its class, and means little if no loss used the class token."
)


def patch_maps_table(details: ImageDetails, backbones: Sequence[str], thumbnails: Mapping[int, str]) -> str:
    """The maps of these backbones, in this order, of the images with a thumbnail; nothing if there are none."""
    found = details.patch_maps
    if found is None:
        return ""
    shown = [name for name in backbones if name in found.components][:MOST_BACKBONES]
    blocks = {name: [("PCA", found.components[name])] for name in shown}
    for name in shown:
        if name in found.attention:
            blocks[name].append(("attention", found.attention[name]))
    rows = []
    for number, place in enumerate(found.images.tolist()[:MOST_IMAGES]):
        if place in thumbnails:
            label = int(details.labels[place])
            name = class_name(label, details.class_names) if label >= 0 else "no label"
            said = f"test image {int(details.items[place])}: {name}"
            image = f'<img alt="{said}" title="{said}" src="data:image/jpeg;base64,{thumbnails[place]}">'
            cells = "".join(
                f"<td{_first(column)}>{_tile(maps[number], f'{kind} of {escape(backbone, 200)}, {said}')}</td>"
                for backbone, block in blocks.items()
                for column, (kind, maps) in enumerate(block)
            )
            rows.append(f"<tr><th class=image scope=row>{image}<small>{name}</small></th>{cells}</tr>")
    if not blocks or not rows:
        return ""
    groups, kinds = "", ""
    for backbone, block in blocks.items():
        groups += f"<th class=first scope=colgroup colspan={len(block)}>{escape(backbone, 200)}</th>"
        kinds += "".join(f"<th{_first(column)} scope=col>{kind}</th>" for column, (kind, _) in enumerate(block))
    return (
        "<div class='scroll patch-maps'><table><caption class=unseen>Maps of test images by network</caption>"
        f"<thead><tr><th class=image rowspan=2>image</th>{groups}</tr><tr>{kinds}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def patch_maps_notes(shown: Sequence[PatchMaps]) -> str:
    """What the tables of these maps can tell and what not; nothing without any."""
    words = [PCA_WORDS] * bool(shown) + [ATTENTION_WORDS] * any(one.attention for one in shown)
    return "".join(f"<p class=note-line>{one}</p>" for one in words)


def _first(column: int) -> str:
    """Set off the first column of a block from the block before."""
    return " class=first" * (column == 0)


def _tile(pixels: NDArray[np.uint8], words: str) -> str:
    """A map as an image, a pixel for each patch; `words` are escaped."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "png", optimize=True)
    png = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{words}" title="{words}" src="data:image/png;base64,{png}">'
