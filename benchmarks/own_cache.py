"""Measurements of what is kept in the cache folder: in one of their own, and started by `python -m`."""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from wildfern.benchmarks.arguments import at_least_one
from wildfern.benchmarks.result import Benchmark


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Copies and indexes are kept in this folder instead of the user's."""
    before = os.environ.get("WILDFERN_CACHE")
    os.environ["WILDFERN_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("WILDFERN_CACHE")
        if before is not None:
            os.environ["WILDFERN_CACHE"] = before


def command(words: str | None, run: Callable[[float, int], Benchmark], images: int, seconds: float) -> None:
    """The command line of `run(seconds, images)`, with these defaults."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=at_least_one, default=images)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = run(given.seconds, given.images)
    Console().print(found.table())
    if given.json:
        given.json.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
