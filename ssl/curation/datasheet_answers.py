"""Answers that were written by hand into a datasheet, kept when it is written anew."""

import re
from collections.abc import Mapping

from wildfern.ssl.curation.datasheet import BY_HAND

_BEGIN, _END = "<!-- answer -->", "<!-- /answer -->"
_QUESTION = re.compile(r"\*\*(.+)\*\*")
_OTHERS = "## Other answers"


def answers_in(text: str) -> dict[str, str]:
    """The answers between the marks of a datasheet, by their questions, without those that are still to be given.

    Several answers to one question are joined. One whose end was lost reaches to the next end: nothing of it is left out.
    """
    found: dict[str, list[str]] = {}
    question, answer = "", list[str]()
    inside = False
    for line in [*text.splitlines(), _END]:
        words = line.strip()
        if inside and words == _END:
            if (words := "\n".join(answer).strip()) and words != BY_HAND:
                found.setdefault(question, []).append(words)
            inside, answer = False, []
        elif inside:
            answer.append(line)
        elif words == _BEGIN:
            inside = True
        elif (match := _QUESTION.fullmatch(words)) is not None:
            question = match[1]
    return {question: "\n\n".join(answers) for question, answers in found.items()}


def with_answers(datasheet: str, answers: Mapping[str, str]) -> str:
    """A datasheet with these answers, and marks where one can be written. Answers to no question of it are at its end."""
    missing, lines, question = dict(answers), list[str](), ""
    for line in datasheet.splitlines():
        if (match := _QUESTION.fullmatch(line)) is not None:
            question = match[1]
        if line.endswith(BY_HAND):
            if words := line.removesuffix(BY_HAND).rstrip():
                lines += [words, ""]
            lines += _block(missing.pop(question, BY_HAND))
        else:
            lines.append(line)
    if missing:
        lines += ["", _OTHERS]
        for other, answer in missing.items():
            lines += ["", f"**{other or 'Notes'}**", "", *_block(answer)]
    return "\n".join(lines) + "\n"


def _block(answer: str) -> list[str]:
    return [_BEGIN, "", answer, "", _END]
