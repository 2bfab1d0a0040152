"""The table of an `EvaluationResult`, as text of any width and as HTML: the same rows, numbers and words."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wildfern.printable import printable
from wildfern.ssl.evaluation.report.breakable import Breakable, widest_piece
from wildfern.ssl.evaluation.report.parts import escape
from wildfern.ssl.evaluation.score_words import (
    Row,
    difference_interval_words,
    interval_words,
    metric_words,
    short_name,
    value_words,
)

if TYPE_CHECKING:
    from wildfern.ssl.evaluation.result import EvaluationResult

TITLE = "Scores on test"
GAP = 2  # blanks between the columns of the text
#: Metrics that are shown beside the main one, where there are any.
BESIDE = ("worst_group_accuracy", "dice_validation_threshold")


@dataclass(frozen=True)
class _Content:
    """A line of `cells` for the main metric of each protocol and backbone; the first `texts` are texts, others numbers."""

    headings: tuple[str, ...]
    texts: int
    lines: list[tuple[Row, tuple[str, ...]]]
    notes: list[str]
    words: list[str]

    def datasets(self) -> list[str]:
        return list(dict.fromkeys(row["dataset"] for row, _ in self.lines))

    def of(self, dataset: str) -> list[tuple[str, ...]]:
        return [cells for row, cells in self.lines if row["dataset"] == dataset]


def text_table(result: "EvaluationResult", width: int) -> Group:
    """A table for each data set that fits `width` cells."""
    content = _content(result)
    texts = content.texts
    columns, narrowest = _columns(content)
    if not (fits := sum(narrowest) + GAP * len(columns) <= width):
        content = _stacked(content)
        columns, narrowest = _columns(content)
        fits = sum(narrowest) + GAP * len(columns) <= width
    parts: list[RenderableType] = [Text(TITLE, style="table.title")]
    for dataset in content.datasets():
        table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for number, (column, least) in enumerate(zip(columns, narrowest, strict=True)):
            is_text = number < texts
            table.add_column(
                Text(column[0]),
                justify="left" if is_text else "right",
                overflow="fold",
                no_wrap=fits and not is_text,
                min_width=least if fits else None,
            )
        for cells in content.of(dataset):
            table.add_row(*map(Breakable, cells[:texts]), *map(Text, cells[texts:]))
        parts += [Breakable(dataset, style="bold"), *map(Breakable, result.images_words(dataset)), table]
    words = (Breakable(text, style="table.caption") for text in content.words)
    return Group(*parts, *map(Breakable, content.notes), *words)


def _columns(content: _Content) -> tuple[list[tuple[str, ...]], list[int]]:
    """Each column with its heading, and the least cells that it takes."""
    columns = list(zip(content.headings, *(cells for _, cells in content.lines), strict=True))
    narrowest = [widest_piece(column) for column in columns[: content.texts]]
    for column in columns[content.texts :]:
        narrowest.append(max(cell_len(line) for cell in column for line in cell.split("\n")))
    return columns, narrowest


def _stacked(content: _Content) -> _Content:
    """The intervals below their numbers instead of beside them."""
    beside = [place for place, heading in enumerate(content.headings) if heading.endswith(" 95 %")]

    def stacked(cells: tuple[str, ...]) -> tuple[str, ...]:
        below = {place - 1: cells[place] for place in beside}
        return tuple(
            f"{cell}\n{below[place]}".rstrip() if place in below else cell
            for place, cell in enumerate(cells)
            if place not in beside
        )

    lines = [(row, stacked(cells)) for row, cells in content.lines]
    return replace(content, headings=stacked(content.headings), lines=lines)


def html_table(result: "EvaluationResult", explained: bool = True) -> str:
    """The same as one table, escaped, in the style of the page around it; without notes and words if not `explained`."""
    content = _content(result)

    def row(cells: tuple[str, ...], tag: str) -> str:
        sides = ("left" if number < content.texts else "right" for number in range(len(cells)))
        return "".join(
            f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for side, cell in zip(sides, cells, strict=True)
        )

    lines = []
    for dataset in content.datasets():
        images = "".join(
            f'<br><small style="font-weight: normal">{escape(line)}</small>' for line in result.images_words(dataset)
        )
        span = len(content.headings)
        lines.append(f'<tr><th colspan={span} style="text-align: left">{escape(dataset)}{images}</th></tr>')
        lines += [f"<tr>{row(cells, 'td')}</tr>" for cells in content.of(dataset)]
    head = f"<thead><tr>{row(content.headings, 'th')}</tr></thead>"
    table = f"<b>{TITLE}</b><table>{head}<tbody>{''.join(lines)}</tbody></table>"
    if not explained:
        return f"<div>{table}</div>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in content.notes)
    words = "<br>".join(map(escape, content.words))
    return f"<div>{table}{f'<ul>{notes}</ul>' if notes else ''}<small>{words}</small></div>"


def _content(result: "EvaluationResult") -> _Content:
    main = result.main_rows()
    others = [row for row in main if not result.is_baseline(row["backbone"])] or main
    several = len({row["backbone"] for row in others}) > 1 or not isinstance(result.baseline, str)
    evaluated = _shown(result, None if several else {row["backbone"] for row in others})
    # For a single backbone, the baseline's values are a column.
    compared = any(result.difference(row) is not None for row in evaluated)
    paired = compared and any(row.get("difference_low") is not None for row in evaluated)
    texts = ("protocol", *(("backbone",) if several else ()), "metric")
    value = evaluated[0]["backbone"] if evaluated and not several else "value"
    numbers = (value, "value 95 %", "n", *((str(result.baseline),) if compared and not several else ()))
    numbers += ("gain",) * compared + ("gain 95 %",) * paired
    several_sets = len({row["dataset"] for row in evaluated}) > 1
    cells = [(row, tuple(map(printable, _cells(result, row, several, compared, paired)))) for row in evaluated]
    return _Content(
        (*texts, *map(printable, numbers)),
        len(texts),
        cells,
        [f"{dataset}: {note}" if several_sets else note for dataset, found in result.notes.items() for note in found],
        [
            *(f"{short_name(name)}: {text}" for name, text in result.protocols.items()),
            *_gain_words(result, evaluated, compared),
            *_size_words(evaluated),
            f"95 %: intervals{' of the value and of the gain' * paired} over the n test images unless a protocol says otherwise. "
            "All metrics: report and evaluation.json of a run, or wildfern evaluate --json FILE or --csv FILE",
        ],
    )


def _shown(result: "EvaluationResult", backbones: set[str] | None) -> list[Row]:
    """The main metric of each protocol and what is read beside it: accuracy of the worst group, Dice at the chosen threshold."""
    main = {id(row) for row in result.main_rows()}
    rows = [row for row in result.rows if id(row) in main or row["metric"].startswith(BESIDE)]
    return [row for row in rows if backbones is None or row["backbone"] in backbones]


def _gain_words(result: "EvaluationResult", rows: list[Row], compared: bool) -> list[str]:
    """What the gain is over, and its unit."""
    if not compared:
        return []
    gains = {row["backbone"] for row in rows if result.difference(row) is not None}
    alone = {row["backbone"] for row in rows if not result.is_baseline(row["backbone"])} - gains
    rest = [
        "no gain where no random network of the same kind was evaluated; --against ROW compares all with one"
    ] * bool(alone)
    over = {result.baseline_of(row["backbone"]) for row in rows if result.difference(row) is not None}
    if len(over) == 1:
        return [f"gain: over {next(iter(over))}, in percentage points for values in percent", *rest]
    pairs = {row["backbone"]: result.baseline_of(row["backbone"]) for row in rows if result.difference(row) is not None}
    said = ", ".join(f"{name} over {other}" for name, other in pairs.items())
    return [f"gain: {said}; in percentage points for values in percent", *rest]


def _size_words(rows: list[Row]) -> list[str]:
    """The sizes of the images, where the backbones got different ones."""
    sizes = {row["backbone"]: row.get("image_size") for row in rows}
    if len(set(sizes.values())) < 2 or None in sizes.values():
        return []
    return ["image sizes: " + ", ".join(f"{name} {size} px" for name, size in sizes.items())]


def _cells(result: "EvaluationResult", row: Row, several: bool, compared: bool, paired: bool) -> tuple[str, ...]:
    other, difference = result.baseline_row(row), result.difference(row)
    gain = "" if difference is None else f"{difference:+.1f}" if row["share"] else f"{difference:+.4g}"
    return (
        short_name(row["protocol"]),
        *((row["backbone"],) if several else ()),
        metric_words(row["metric"]),
        value_words(row),
        interval_words(row).replace(" to ", "–"),
        "" if row["n"] is None else f"{row['n']:,}",
        *(("" if other is None else value_words(other),) if compared and not several else ()),
        *((gain,) if compared else ()),
        *((difference_interval_words(row).replace(" to ", "…"),) if paired else ()),
    )
