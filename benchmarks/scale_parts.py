"""All parts whose cost grows with images, ranks or weights, each beside its former or usual form, in one table.

    python -m wildfern.benchmarks.scale_parts --json benchmarks/results/scale_parts.json
    python -m wildfern.benchmarks.scale_parts --only logs parquet

Takes about 10 minutes on two cores. Parquet is also compared with the package datasets, where that is installed.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.console import Console

from wildfern.benchmarks import scale_batches, scale_folder, scale_logs, scale_parquet, scale_remote, scale_shards
from wildfern.benchmarks.loss_scaling import scaling_rows
from wildfern.benchmarks.result import Benchmark
from wildfern.ssl.tracking import environment

SECONDS = 5.0  # for each alternative


def _losses() -> Benchmark:
    rows = scaling_rows(torch.device("cpu"), SECONDS)
    return Benchmark("losses", "steps/s", "forward and backward; peak memory: all that a step allocates", rows)


PARTS: dict[str, Callable[[], Benchmark]] = {
    "losses": _losses,
    "folder": lambda: scale_folder.benchmark([100_000]),
    "shards": lambda: scale_shards.run(SECONDS),
    "parquet": lambda: scale_parquet.run(SECONDS),
    "remote": lambda: scale_remote.run(SECONDS),
    "logs": lambda: scale_logs.run(),
    "batches": lambda: scale_batches.run(SECONDS),
}


def run(names: Iterable[str], show: Callable[[Benchmark], None]) -> dict:
    """The content of the JSON file: the results of these parts by name, each of which is given to `show` when it is there."""
    found = {}
    for name in names:
        result = PARTS[name]()
        show(result)
        found[name] = {key: value for key, value in result.as_json().items() if key not in ("benchmark", "environment")}
    return {"benchmark": "scale_parts", "parts": found, "environment": environment()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="write the results to this file")
    given = parser.parse_args()
    content = run(given.only, lambda result: Console().print(result.table()))
    if given.json:
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
