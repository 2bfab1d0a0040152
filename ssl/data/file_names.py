"""Which files are images by their names, which are hidden or left by an operating system, and what was passed over."""

from collections import Counter
from collections.abc import Mapping

from wildfern.ssl.data.image_file import EXTENSIONS

LITTER = {"__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}


def is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def is_hidden(name: str) -> bool:
    """Hidden, or left by an operating system; `name` is one part of a path."""
    return name.startswith(".") or name.lower() in LITTER


def is_litter(path: str) -> bool:
    """Whether a part of this path (with "/") is left by an operating system: AppleDouble (._x), __MACOSX, Thumbs.db …"""
    return any(part.startswith("._") or part.lower() in LITTER for part in path.split("/"))


class PassedOver:
    """Counts of files that are no images, by extension."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, extension: str | None = None) -> None:
        """`name` is the base name; `extension` (with its dot) defaults to the last one."""
        if extension is None:
            stem, dot, last = name.rpartition(".")
            extension = dot + last if stem else ""
        self._counts[extension.lower() if len(extension) <= 20 else ""] += 1

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "PassedOver":
        """What was passed over, by extension."""
        found = cls()
        found._counts.update(counts)
        return found

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def remove(self, name: str) -> None:
        """Take back what `add` counted: the file is read after all."""
        extension = name[name.rindex(".") :].lower()
        self._counts[extension] -= 1
        self._counts += Counter()  # without zeros

    def update(self, other: "PassedOver") -> None:
        self._counts.update(other._counts)

    @property
    def total(self) -> int:
        return self._counts.total()

    def __str__(self) -> str:
        """`5 .txt, 3 .npy`; the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
        words = [f"{count:,} {extension or 'without extension'}" for extension, count in ordered[:6]]
        rest = sum(count for _, count in ordered[6:])
        return ", ".join(words) + (f", {rest:,} others" if rest else "")
