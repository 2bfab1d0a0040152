"""What a new user waits for: `wildfern quickstart` from an empty compile cache, and the start from a full one.

    python -m wildfern.benchmarks.first_contact --json benchmarks/results/first_contact.json

With `--no-bf16`, on a processor with AVX-512, torch and oneDNN compute as on one without bfloat16 (AVX2).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from wildfern.ssl.tracking import environment

WITHOUT_BF16 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
SHORT = ("training.steps=2", "training.log_every=1", "evaluation.on=[]")
WARM_STARTS = 3


@dataclass(frozen=True)
class Quickstart:
    """Times of one command in seconds; `longest_silence` is the longest time without output to a pipe."""

    command: str
    total: float
    first_step: float
    longest_silence: float
    scores: dict[str, float]  # accuracy by "dataset protocol backbone"


def quickstart(arguments: list[str], folder: Path, surroundings: dict[str, str]) -> Quickstart:
    """Run the command in an empty folder, with its output to a pipe. Raises CalledProcessError if it fails."""
    command = ["quickstart", *arguments]
    began = said = time.perf_counter()
    silence, output = 0.0, b""
    process = subprocess.Popen(
        [sys.executable, "-m", "wildfern.launch.command", *command, "--run", "run"],
        cwd=folder,
        env=os.environ | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while part := os.read(process.stdout.fileno(), 2**16):
        now = time.perf_counter()
        silence, said = max(silence, now - said), now
        output += part
        sys.stdout.buffer.write(part)
        sys.stdout.flush()
    total = time.perf_counter() - began
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command, output)
    lines = (folder / "run" / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    started = next(row["startup_seconds"] for row in map(json.loads, lines) if "startup_seconds" in row)
    scores = {}
    if (folder / "run" / "evaluation.json").is_file():
        rows = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))["rows"]
        scores = {f"{row['dataset']} {row['protocol']} {row['backbone']}": round(row["value"], 4) for row in rows}
    rounded = [round(seconds, 1) for seconds in (total, started, silence)]
    return Quickstart(" ".join(["wildfern", *command]), *rounded, scores)


def measure(surroundings: dict[str, str], overrides: list[str]) -> dict:
    """The quickstart with an empty compile cache, and starts with that cache full."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        surroundings = surroundings | {"NUMBA_CACHE_DIR": str(folder / "cache")}
        runs = []
        for number in range(1 + WARM_STARTS):
            (folder / str(number)).mkdir()
            arguments = overrides if number == 0 else [*overrides, *SHORT]
            runs.append(quickstart(arguments, folder / str(number), surroundings))
    cold, *warm = runs
    started = min(run.first_step for run in warm)
    return {
        "cold": asdict(cold),
        "warm_first_step": started,
        "compiling_delays_first_step": round(cold.first_step - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="changes to the recipe: key.sub=value")
    parser.add_argument("--no-bf16", action="store_true", help="compute as on a processor without bfloat16")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(WITHOUT_BF16 if given.no_bf16 else {}, given.overrides)
    key = "without_bf16" if given.no_bf16 else "native"
    cold = found["cold"]
    print(
        f"\n{key}: {cold['total']:.0f} s in total, first step after {cold['first_step']:.1f} s (with a full compile cache: "
        f"{found['warm_first_step']:.1f} s), longest silence {cold['longest_silence']:.1f} s"
    )
    if given.json:
        before = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else {}
        results = {**before.get("results", {}), key: {**found, "environment": environment()}}
        text = json.dumps({"benchmark": "first contact", "unit": "seconds", "results": results}, indent=2)
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
