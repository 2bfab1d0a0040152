"""Foreign text in Markdown: as words of a line, and as a block of code."""

import re
from collections.abc import Iterable, Iterator

from wildfern.printable import printable


def plain(text: str) -> str:
    """A text of strangers, without what Markdown or HTML would make of it; brackets stay where they make no link."""
    text = printable(text)
    left_out = "`|<>\\" + "[]" * bool(re.search(r"\]\s*[(:\[]", text))
    return "".join("" if character in left_out else character for character in text)


def fenced(language: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines as a block of code, which no line of a stranger can end."""
    lines = [printable(line) for line in lines]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    yield from lines
    yield fence
