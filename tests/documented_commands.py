"""The commands of a page of the documentation, and those that it marks as not run.

A command is a line of a `bash` block, and any other line of a block or code span that begins with the name of a program. The mark
`<!-- not run: REASON -->` is in the line before a block, or directly behind a code span.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("wildfern", "deepspeed", "torchrun", "python", "pip", "pytest", "mkdocs", "srun", "sbatch")
PYTHON = ("python", "py")
SHELL = ("bash", "sh", "console")
MARK = re.compile(r"<!-- not run: (.+?) -->")
BLOCK = re.compile(
    r"(?:^[ \t]*<!-- not run: (?P<reason>.+?) -->\n)?^(?P<indent>[ \t]*)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^[ \t]*```",
    re.MULTILINE | re.DOTALL,
)
SPAN = re.compile(r"(?<!`)`(?P<text>[^`]+)`(?!`)(?:\s?<!-- not run: (?P<reason>.+?) -->)?")
STARTS = re.compile(rf"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)})(?: |$)")


@dataclass(frozen=True)
class Command:
    """One command, with the values of `VARIABLE=value` in front of it. `reason`: why no test runs it; None if one does."""

    text: str
    page: str
    reason: str | None = None
    in_text: bool = False  # a code span: may also be the name of a command

    @property
    def words(self) -> list[str]:
        return [word for word in shlex.split(self.text, comments=True) if word != "…"]

    @property
    def environment(self) -> dict[str, str]:
        count = next(n for n, word in enumerate(self.words) if not re.match(r"[A-Z_]+=", word))
        return dict(word.split("=", 1) for word in self.words[:count])

    @property
    def arguments(self) -> list[str]:
        """Program and arguments, up to a redirection."""
        words = self.words[len(self.environment) :]
        return words[: words.index(">")] if ">" in words else words

    @property
    def is_name(self) -> bool:
        """Whether the text only names a command of `wildfern`, a program or a module."""
        words = self.arguments
        parts = words[2:] if words[:2] == ["wildfern", "curate"] else words[1:]
        return self.in_text and (
            len(words) == 1 or (words[0] == "wildfern" and len(parts) <= 1 and "-" not in "".join(parts))
        )


def python_blocks(page: Path) -> list[str]:
    """The text of the Python blocks that are not marked."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [block["text"] for block in found if block["language"] in PYTHON and not block["reason"]]


def commands(page: Path) -> list[Command]:
    """All commands of a page, in the order of the text: those of blocks, then those of code spans."""
    return commands_in(page.read_text(encoding="utf-8"), page.name)


def commands_in(text: str, name: str) -> list[Command]:
    found = []
    for block in BLOCK.finditer(text):
        if block["language"] in PYTHON:
            continue
        for line in re.sub(r"\\\n\s*", "", block["text"]).splitlines():
            line = line.strip()
            if line and not line.startswith("#") and (block["language"] in SHELL or STARTS.match(line)):
                found += [Command(one, name, block["reason"]) for one in line.removeprefix("$ ").split(" && ")]
    for span in SPAN.finditer(BLOCK.sub("", text)):
        line = " ".join(span["text"].split())
        if STARTS.match(line):
            found += [Command(one, name, span["reason"], in_text=True) for one in line.split(" && ")]
    return found


def idle_marks(text: str) -> list[str]:
    """The reasons of marks that belong to no block and no command of a code span."""
    used = [block["reason"] for block in BLOCK.finditer(text)]
    used += [span["reason"] for span in SPAN.finditer(BLOCK.sub("", text)) if STARTS.match(span["text"])]
    left = [*MARK.findall(text)]
    for reason in filter(None, used):
        left.remove(reason)
    return left
