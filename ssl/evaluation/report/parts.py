"""Parts of the report that several sections use: escaped text, data for scripts, sections, tables and bars."""

import json
import re
from collections.abc import Iterable, Sequence
from html import escape as html
from typing import Any

MOST_CHARACTERS = 2_000  # of a text
NOT_SHOWN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # control characters
COLORS = 8  # of runs and backbones, `--run-1` …


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """The first `most` characters of a text, control characters and halves of surrogate pairs replaced; not escaped."""
    return NOT_SHOWN.sub("\ufffd", text if len(text) <= most else f"{text[:most]} …")


def escape(text: str, most: int = MOST_CHARACTERS) -> str:
    """`shown`, escaped for the page."""
    return html(shown(text, most))


def json_script(value: Any) -> str:
    """A value for the scripts of the page; texts in it must have gone through `shown`. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json">{text}</script>'


def section(title: str, content: str) -> str:
    """A section of the page under an escaped title; nothing without content."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f'<section id="{name}"><h2>{title}</h2>{content}</section>' if content else ""


def folded(summary: str, content: str, is_open: bool = False) -> str:
    """What is shown when its escaped summary is chosen; nothing without content."""
    return f"<details{' open' * is_open}><summary>{summary}</summary>{content}</details>" if content else ""


def table(head: Iterable[str], rows: Iterable[str], numbers: int = 0, caption: str = "") -> str:
    """`numbers`: how many of the last columns hold figures; `caption`: for readers that do not see what stands around."""
    head = list(head)
    kinds = ["num" if i >= len(head) - numbers else "" if cell or not i else "bar" for i, cell in enumerate(head)]
    cells = "".join(f"<th{f' class={kind}' * bool(kind)}>{cell}</th>" for kind, cell in zip(kinds, head, strict=True))
    said = f"<caption class=unseen>{caption}</caption>" * bool(caption)
    return f"<div class=scroll><table>{said}<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def dot(index: int) -> str:
    """A dot in the color of a run or backbone in the charts."""
    return f'<span class=dot style="background: {color(index)}"></span>'


def color(index: int) -> str:
    """The CSS color of a run or backbone."""
    return f"var(--run-{index % COLORS + 1})"


def run_name(names: Sequence[str], index: int) -> str:
    """A run's name, after its dot."""
    return f"{dot(index)}{escape(names[index])}"


def percent(share: float) -> str:
    """A share as `93.1 %`."""
    return f"{100 * share:.1f} %"


def bar(value: float, low: float | None, high: float | None, fill: str) -> str:
    """The content of a cell of the class `bar`: a share in [0, 1] with its interval."""
    found = f'<i style="width: {100 * _within(value):.1f}%; background: {fill}"></i>'
    if low is not None and high is not None:
        start, end = _within(low), _within(high)
        found += f'<b style="left: {100 * start:.1f}%; width: {100 * (end - start):.1f}%"></b>'
    return f"<span>{found}</span>"


def _within(share: float) -> float:
    return min(max(0.0, share), 1.0)  # 0 for NaN
