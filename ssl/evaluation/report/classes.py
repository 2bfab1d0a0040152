"""Classes and groups of test images in the report: accuracy of each, and which classes are taken for which."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wildfern.ssl.evaluation.evaluator import Predictions
from wildfern.ssl.evaluation.metrics.accuracy_spread import PartAccuracy
from wildfern.ssl.evaluation.metrics.class_accuracy import ClassAccuracy, class_accuracies
from wildfern.ssl.evaluation.metrics.confusion import Confusion, confusion_counts, top_confusions
from wildfern.ssl.evaluation.metrics.group_accuracy import group_accuracies
from wildfern.ssl.evaluation.metrics.label_counts import LabelCounts
from wildfern.ssl.evaluation.report.image_details import ImageDetails, Predicted
from wildfern.ssl.evaluation.report.parts import bar, color, dot, escape, folded, percent, table

WORST_CLASSES = 50  # that are shown of more than `MOST_CLASSES`
MOST_CLASSES = 100
MATRIX_CLASSES = 25  # of a confusion matrix; for more only the most frequent confusions
MOST_CONFUSIONS = 12
MOST_GROUPS = 100
MOST_COLUMNS = 8


def class_name(label: int, names: Sequence[str] | None) -> str:
    """The escaped name of a class, or its number."""
    return escape(names[label], 200) if names is not None and 0 <= label < len(names) else str(label)


def labeled_predictions(details: ImageDetails, found: Predicted) -> tuple[Predictions, NDArray[np.int64]]:
    """The predictions of the images with a label, and the places of these images."""
    places = np.flatnonzero(details.labels >= 0)
    return Predictions(torch.from_numpy(details.labels[places]), torch.from_numpy(found.ranked[places])), places


def class_table(details: ImageDetails, by_backbone: Mapping[str, Predicted]) -> str:
    """A row for each class, the worst of the first backbone first, with a bar for each backbone."""
    counts = details.train_counts
    train = LabelCounts() if counts is None else LabelCounts(int(counts.sum()), dict(enumerate(counts.tolist())))
    found: dict[str, dict[int, ClassAccuracy]] = {}
    for name, one in by_backbone.items():
        predictions, _ = labeled_predictions(details, one)
        found[name] = {row.label: row for row in class_accuracies(predictions, train)} if len(predictions) else {}
    first = sorted(next(iter(found.values())).values(), key=lambda row: (row.accuracy, row.label))
    if len(first) < 2:
        return ""
    shown = first if len(first) <= MOST_CLASSES else first[:WORST_CLASSES]
    rows = []
    for row in shown:
        figures = f"<td>{row.n:,}</td>" + f"<td>{row.train:,}</td>" * (counts is not None)
        cells = "".join(_cells(found[name].get(row.label), i) for i, name in enumerate(found))
        rows.append(f"<tr><th scope=row>{class_name(row.label, details.class_names)}</th>{figures}{cells}</tr>")
    head = ["class", "test", *(["train"] if counts is not None else []), *_backbones(found)]
    cut = f"<p class=note-line>The {len(shown)} worst of {len(first):,} classes.</p>" * (len(shown) < len(first))
    return table(head, rows, caption="Accuracy of each class") + cut


def confusions(details: ImageDetails, found: Predicted) -> str:
    """The matrix of a few classes, or the most frequent confusions of many."""
    predictions, _ = labeled_predictions(details, found)
    if not len(predictions):
        return ""
    counts = confusion_counts(predictions)
    classes = sorted({label for pair in counts for label in pair})
    matrix = _matrix(details, counts, classes) if 2 <= len(classes) <= MATRIX_CLASSES else ""
    frequent = _top(details, top_confusions(counts, MOST_CONFUSIONS))
    return matrix + (folded("the most frequent confusions", frequent) if matrix else frequent)


def _matrix(details: ImageDetails, counts: Mapping[tuple[int, int], int], classes: Sequence[int]) -> str:
    """Rows are true classes; a cell is as dark as its share of the row."""
    named = {label: class_name(label, details.class_names) if label >= 0 else "none" for label in classes}
    rows = []
    for true in classes:
        total = sum(counts.get((true, guess), 0) for guess in classes)
        if not total:
            continue
        cells = []
        for guess in classes:
            count = counts.get((true, guess), 0)
            share = count / total
            kind = "right" if true == guess else "wrong"
            said = f"{named[true]} taken for {named[guess]}: {count} of {total}"
            style = f" style='--share: {share:.3f}'" * bool(count)
            strong = " strong" * (share > 0.55)
            cells.append(f"<td class='{kind}{strong}'{style} title='{said}'>{count or ''}</td>")
        rows.append(f"<tr><th scope=row>{named[true]}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th scope=col><span>{named[guess]}</span></th>" for guess in classes)
    return (
        "<div class=scroll tabindex=0><table class=matrix><caption>rows: true class; columns: first guess; a cell is colored by "
        f"its share of the row</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _top(details: ImageDetails, found: Sequence[Confusion]) -> str:
    rows = []
    for one in found:
        low, high = one.interval
        names = (class_name(one.true, details.class_names), class_name(one.predicted, details.class_names))
        rows.append(
            f"<tr><td>{names[0]}</td><td>{names[1]}</td><td>{one.count} of {one.n}</td>"
            f"<td class=share>{percent(one.count / one.n)}<small>{100 * low:.1f} to {100 * high:.1f}</small></td></tr>"
        )
    head = ("true class", "taken for", "images", "share of the class")
    return table(head, rows, caption="The most frequent confusions") if rows else ""


def group_tables(details: ImageDetails, by_backbone: Mapping[str, Predicted]) -> dict[str, str]:
    """By column of metadata: a row for each group, with a bar for each backbone."""
    from wildfern.ssl.data.groups import Groups

    tables = {}
    for column, (codes, names) in list(details.groups.items())[:MOST_COLUMNS]:
        found: dict[str, dict[str, PartAccuracy]] = {}
        for backbone, one in by_backbone.items():
            predictions, places = labeled_predictions(details, one)
            if len(predictions):
                rows = group_accuracies(predictions, Groups(column, codes[places], names)).rows
                found[backbone] = {row.name: row for row in rows}
        if not found:
            continue
        lines = []
        for name, row in list(next(iter(found.values())).items())[:MOST_GROUPS]:
            cells = "".join(_cells(found[backbone].get(name), i) for i, backbone in enumerate(found))
            lines.append(f"<tr><th scope=row>{escape(name, 200)}</th><td>{row.n:,}</td>{cells}</tr>")
        tables[escape(column, 200)] = table(
            (escape(column, 200), "test", *_backbones(found)), lines, caption="Accuracy of each group"
        )
    return tables


def _backbones(found: Mapping[str, object]) -> list[str]:
    """Headings of two columns for each: its bar, and its name over the numbers."""
    return [cell for i, name in enumerate(found) for cell in ("", f"{dot(i)}{escape(name, 200)}")]


def _cells(part: PartAccuracy | None, index: int) -> str:
    if part is None:
        return "<td class=bar></td><td></td>"
    low, high = part.interval
    said = f"{percent(part.accuracy)}<small>{100 * low:.1f} to {100 * high:.1f}</small>"
    return f"<td class=bar>{bar(part.accuracy, low, high, color(index))}</td><td class=share>{said}</td>"
