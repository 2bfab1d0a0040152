"""Scores as people read them: protocol, metric, value, interval, and the images they are of."""

import re
from typing import Any

Row = dict[str, Any]


def images_words(row: Row) -> str:
    """How many images of which split a row is of: `train: 1,258 images · test: 539 images (folder valid)`."""
    parts = []
    for split in ("train", "test"):
        images, words = row.get(f"{split}_images"), row.get(f"{split}_split")
        if images is not None:
            plural = "" if images == 1 else "s"
            parts.append(f"{split}: {images:,} image{plural}" + (f" ({words})" if words else ""))
    return " · ".join(parts)


def short_name(protocol: str) -> str:
    """The name of a protocol in the table, where columns are narrow: `few_shot (classifier=knn, shots=5)` is `knn, 5-shot`."""
    few = re.fullmatch(r"few_shot \(classifier=(\w+), shots=(\d+)(?:, seeds=\d+)?\)", protocol)
    return f"{few[1]}, {few[2]}-shot" if few else protocol


def metric_words(metric: str) -> str:
    """A metric as people read it: `top5_accuracy` → "top-5 accuracy"."""
    if metric.endswith("_threshold"):  # dice_validation_threshold → "dice, validation threshold"
        metric = metric.replace("_", ", ", 1)
    return metric.replace("top5", "top-5").replace("_", " ")


def value_words(row: Row) -> str:
    """The value, in percent for a share."""
    return f"{100 * row['value']:.1f} %" if row["share"] else f"{row['value']:.4g}"


def difference_interval_words(row: Row) -> str:
    """The interval of the difference as "low to high", in points for a share; empty where there is none."""
    low, high = row.get("difference_low"), row.get("difference_high")
    if low is None or high is None:
        return ""
    return f"{low:+.1f} to {high:+.1f}" if row["share"] else f"{low:+.4g} to {high:+.4g}"


def interval_words(row: Row) -> str:
    """The interval as "low to high" in the unit of the value; empty where there is none."""
    if row["low"] is None or row["high"] is None:
        return ""
    low, high = row["low"], row["high"]
    return f"{100 * low:.1f} to {100 * high:.1f}" if row["share"] else f"{low:.4g} to {high:.4g}"
