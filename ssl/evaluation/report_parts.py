"""Parts of the report that several sections use: escaped text, sections and tables."""

import re
from collections.abc import Iterable
from html import escape as html

MOST_CHARACTERS = 2_000  # of a text
NOT_SHOWN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # control characters


def escape(text: str, most: int = MOST_CHARACTERS) -> str:
    """The first `most` characters of a text for the page, control characters and halves of surrogate pairs replaced."""
    return html(NOT_SHOWN.sub("\ufffd", text if len(text) <= most else f"{text[:most]} …"))


def section(title: str, content: str) -> str:
    """A section of the page; nothing without content."""
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def table(head: Iterable[str], rows: Iterable[str], numbers: int = 0) -> str:
    """`numbers`: how many of the last columns hold figures."""
    head = list(head)
    kinds = ["num" if i >= len(head) - numbers else "" if cell or not i else "bar" for i, cell in enumerate(head)]
    cells = "".join(f"<th{f' class={kind}' * bool(kind)}>{cell}</th>" for kind, cell in zip(kinds, head, strict=True))
    return f"<div class=scroll><table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
