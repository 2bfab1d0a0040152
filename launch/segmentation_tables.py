"""The tables of a segmentation: images.csv has a row for each image, segments.csv one for each segment of a skeleton."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.files import write_text
from wildfern.ssl.segmentation.skeleton_graph import skeleton_graph
from wildfern.ssl.segmentation.skeleton_table import COLUMNS

DIGITS = 4  # after the point
IMAGE_COLUMNS = (
    "image",
    "mask",
    "height",
    "width",
    "share",
    "area",
    "length",
    "mean_width",
    "segments",
    "branch_points",
    "end_points",
    "components",
)


class SegmentationTables:
    """Rows of both tables. `length` is in the unit of the pixel size, `area` in its square, `share` that of the image."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.segments: list[dict[str, Any]] = []

    def add(self, name: str, file: str, mask: NDArray[np.bool_], pixel_size: float, shortest: float) -> None:
        """The rows of an image, whose mask is in `file`; `pixel_size` and `shortest` as of `skeleton_graph`."""
        graph = skeleton_graph(mask, pixel_size=pixel_size, shortest=shortest)
        length = graph.total_length
        weighted = sum(one.length * one.mean_width for one in graph.segments)
        values = (
            name,
            file,
            *mask.shape,
            float(mask.mean()),
            float(mask.sum()) * pixel_size**2,
            length,
            weighted / length if length else "",
            len(graph.segments),
            graph.branch_points,
            graph.end_points,
            graph.components,
        )
        self.images.append(dict(zip(IMAGE_COLUMNS, values, strict=True)))
        self.segments += [{"image": name, **row} for row in graph.rows()]

    def write(self, folder: Path) -> None:
        """Write images.csv and segments.csv."""
        _write(folder / "images.csv", self.images, IMAGE_COLUMNS)
        _write(folder / "segments.csv", self.segments, ("image", *COLUMNS))


def _write(file: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)
    write_text(file, text.getvalue())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else round(value, DIGITS)
    return value
