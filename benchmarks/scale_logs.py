"""Logs of long runs: resuming them, and reading them for the report, by their number of lines.

    python -m wildfern.benchmarks.scale_logs --json benchmarks/results/scale_logs.json

Beside it what earlier versions did: parse every line and write those that stay to a new file; and all records in memory.
"""

import argparse
import json
import math
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from wildfern.benchmarks.arguments import at_least_one
from wildfern.benchmarks.result import Benchmark
from wildfern.bounded_json import parse_json
from wildfern.files import read_lines, replacing
from wildfern.ssl.evaluation.report.series import read_series
from wildfern.ssl.tracking import JsonLines, read_records

LINES = (10_000, 100_000, 1_000_000)
EVERY = 10  # steps between two lines
KEYS = ("alignment", "embedding_std", "feature_std", "gradient_norm", "learning_rate", "loss", "rank_me", "uniformity")
CUT = 100  # lines since the checkpoint from which the run resumes
MOST_TRACED = (
    100_000  # lines for which the memory of the former ways is measured, which tracing makes several times slower
)


def run(sizes: Sequence[int] = LINES) -> Benchmark:
    """Lines per second, one call each; figures: seconds, and the peak of memory in MB."""
    rows: list[dict] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "metrics.jsonl"
        for lines in sizes:
            before_step = EVERY * (lines - CUT)
            resuming = {
                "every line parsed and written anew": partial(rewrite, log, before_step),
                "cut at the end": partial(resume, log, before_step),
            }
            reading = {
                "all records": partial(read_records, log),
                "series of bounded length": partial(read_series, log, []),
            }
            for case, things in {"resume": resuming, "report": reading}.items():
                rows += measured(f"{case}, {lines:,} lines", log, lines, things, figures)
    return Benchmark(
        "scale_logs",
        "lines/s",
        f"One call each, of files in the system's cache, with lines of {len(KEYS)} metrics; resuming removes the last {CUT}.",
        rows,
        figures,
    )


def measured(
    case: str, log: Path, lines: int, things: dict[str, Callable[[], object]], figures: dict[str, float]
) -> list[dict]:
    """Rows of one case, the first of which is the former way; adds to `figures`."""
    seconds = {}
    for place, (what, call) in enumerate(things.items()):
        write_log(log, lines)
        began = time.perf_counter()
        call()
        seconds[what] = figures[f"{case}, {what}: s"] = time.perf_counter() - began
        if place or lines <= MOST_TRACED:
            write_log(log, lines)
            figures[f"{case}, {what}: peak MB"] = peak(call)
    former = next(iter(seconds.values()))
    return [
        {"case": case, "what": what, "rate": lines / took, "ratio": former / took if place else None}
        for place, (what, took) in enumerate(seconds.items())
    ]


def resume(path: Path, before_step: int) -> None:
    JsonLines.resume(path, before_step).close()


def write_log(path: Path, lines: int) -> None:
    """A log as a run writes it, of noisy numbers with all digits."""
    with path.open("w", encoding="utf-8") as file:
        for line in range(lines):
            values = {key: math.sin(line * (place + 1.1)) / 3 for place, key in enumerate(KEYS)}
            file.write(json.dumps({"step": EVERY * line, **values}) + "\n")


def rewrite(path: Path, before_step: int) -> None:
    """What resuming was: parse every line, and replace the file by those of earlier steps."""
    with replacing(path) as beside, beside.open("wb") as file:
        for line in read_lines(path, 2**20):
            if line is not None and parse_json(line)["step"] < before_step:
                file.write(line)


def peak(call: Callable[[], object]) -> float:
    """Megabytes that Python and numpy hold at most during the call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=at_least_one, nargs="+", default=list(LINES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = run(given.lines)
    Console().print(result.table())
    for name, value in result.figures.items():
        print(f"{name.rpartition(': ')[0]}: {value:,.2f} {name.rpartition(': ')[2]}")
    if given.json:
        given.json.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
