"""Errors of a recipe: each names the file, the key and what would be valid; all are reported together."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Problem:
    """One error: its file ("command line" for overrides), its dotted key ("" for a whole file) and the message."""

    file: str
    key: str
    message: str
    suggestion: str | None = None
    known: tuple[str, ...] = ()
    advice: str = ""  # what to do, after all others

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.file, self.key, self.message) if part)
        if self.suggestion:
            text += f"; did you mean {self.suggestion}?"
        if self.known:
            text += f" (known: {', '.join(self.known)})"
        return f"{text}; {self.advice}" if self.advice else text


class RecipeErrors(ValueError):
    """All problems of one recipe; `str()` gives one line for each."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` most likely misspells; None if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def dotted(path: Iterable[str | int]) -> str:
    """`("data", 0, "weight")` as a dotted key: `data.0.weight`."""
    return ".".join(str(part) for part in path)
