"""Where the user's computer keeps what can be made again: features, indexes and copies of data sets."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(kind: str) -> Path:
    """The folder `kind` in `WILDFERN_CACHE`, or else in `wildfern` in the user's cache folder; it may not exist yet.

    The user's cache folder is `XDG_CACHE_HOME`, or else `~/.cache`.
    """
    own = os.environ.get("WILDFERN_CACHE")
    if own:
        return Path(own) / kind
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~")) / ".cache") / "wildfern" / kind
