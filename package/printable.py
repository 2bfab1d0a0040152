"""Foreign text as it may be printed: names of files, a stranger's run folder, errors of libraries.

A terminal obeys control characters: they set its title, move the cursor, hide or reverse what follows.
"""

import codecs
import re

__all__ = ["REPLACE", "encodable", "printable", "printable_lines"]

# C0 and C1 control characters, line and paragraph separators, directions that reach beyond their word, lone surrogates (bytes of
# file names that are not UTF-8), and characters without a width that only hide differences. Joiners of emoji and scripts stay.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_ASCII = {
    "×": "x",
    "·": "|",
    "…": "...",
    "–": "-",
    "—": "-",
    "±": "+-",
    "✓": "+",
    "✗": "x",
    "“": '"',
    "”": '"',
    "’": "'",
}

REPLACE = "wildfern.printable"  # `errors` of a stream whose encoding lacks a character


def printable(text: object) -> str:
    """The text on one line, with each character that a terminal would obey as an escape such as \\x1b or \\u202e."""
    return _UNSAFE.sub(_escape, str(text))


def printable_lines(text: object) -> str:
    """Like `printable`, but lines stay lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def encodable(text: str, encoding: str | None) -> str:
    """The text in characters that the encoding has: "x" for "×" in ASCII, escapes for those without a likeness."""
    encoding = encoding or "utf-8"
    try:
        return text.encode(encoding, REPLACE).decode(encoding)
    except LookupError:  # no such encoding
        return text.encode("ascii", REPLACE).decode("ascii")


def _escape(found: re.Match) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in part), error.end


codecs.register_error(REPLACE, _replaced)
