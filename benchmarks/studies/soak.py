"""Two ranks under DeepSpeed for a while, killed again and again: whether memory, open files and step time stay flat.

    python -m wildfern.benchmarks.studies.soak --minutes 20 --json benchmarks/results/study_soak.json

Trains with ZeRO 3 and sharded checkpoints on a folder of rendered images. All processes are killed (SIGKILL) every few minutes
and resumed; checkpoints rotate, and the run is evaluated on a folder that grows between kills.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from wildfern.generators import make_stream
from wildfern.ssl.tracking import environment, read_records

TRAIN_IMAGES, EVALUATED_IMAGES, ADDED, CLASSES = 2000, 200, 40, 4
EVERY = 5.0  # s between looks at the processes
WARM = 60.0  # s of each life that do not count: imports, compilation, the first evaluation
FIRST_STEPS = 20  # of each life, whose time does not count
LIFE = (180.0, 300.0)  # s
RECIPE = (
    "views={name: simclr, size: 32}",
    "method={name: byol}",
    "training.batch_size=64",
    "training.steps=1000000",
    "training.checkpoint_every=20",
    "training.keep_checkpoints=2",
    "training.checkpoint_form=sharded",
    "training.log_every=1",
    "evaluation.every=60",
    "evaluation.protocols=[knn]",
    "engine={name: deepspeed, zero_stage: 3}",
)


@dataclass
class Life:
    """From one start to its kill. Of each rank, by turns: memory in MB, open files, threads; and seconds of each step."""

    seconds: float = 0.0
    first_step: int = 0
    last_step: int = 0
    memory: list[list[float]] = field(default_factory=list)
    files: list[list[int]] = field(default_factory=list)
    threads: list[list[int]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


def run(minutes: float, seed: int = 0) -> dict:
    """The figures of each life, and of all of them."""
    draw, lives = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "train", range(TRAIN_IMAGES))
        draw_images(folder / "evaluated", range(EVALUATED_IMAGES), labeled=True)
        until, number = time.monotonic() + 60 * minutes, EVALUATED_IMAGES
        while time.monotonic() < until:
            seconds = min(draw.uniform(*LIFE), max(until - time.monotonic(), 2 * WARM))
            lives.append(one_life(folder, seconds, resume=bool(lives)))
            draw_images(folder / "evaluated", range(number, number + ADDED), labeled=True)
            number += ADDED
            last = lives[-1]
            print(f"life {len(lives)}: steps {last.first_step} to {last.last_step}, {summary([last])}", flush=True)
        records = records_of(folder / "run" / "metrics.jsonl")
        steps = [record["step"] for record in records if "loss" in record]  # others are of evaluations
        assert steps == list(range(len(steps))), "a step is missing in metrics.jsonl, or twice there"
        left = sorted(path.name for path in (folder / "run" / "checkpoints").glob("step_*"))
        assert 2 <= len(left) <= 3, f"2 checkpoints and one more being published should be kept: {left}"
    return {
        "minutes": minutes,
        "kills": len(lives),
        "steps": len(steps),
        "summary": summary(lives),
        "lives": [
            {key: value for key, value in asdict(life).items() if not isinstance(value, list)}
            | summary([life])
            | {"memory MB every half minute": [round(sum(both)) for both in life.memory[:: round(30 / EVERY)]]}
            for life in lives
        ],
    }


def one_life(folder: Path, seconds: float, resume: bool) -> Life:
    """Start or resume the run, look at its ranks until it is time, and kill them all."""
    run, life = folder / "run", Life()
    life.first_step = steps_of(run)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = shutil.which("deepspeed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [str(launcher), "--num_accelerators", "2", "--master_port", port, "--module", "wildfern.launch.pretrain"]
    command += ["--recipe", "quickstart", f"data=folder:{folder / 'train'}", *RECIPE]
    command += [f"evaluation.on=[{{source: 'folder:{folder / 'evaluated'}', labels: folders, test_fraction: 0.5}}]"]
    command += ["--run", str(run), *(["--resume"] if resume else [])]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("w") as output:
        launched = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True
        )
        began = time.monotonic()
        try:
            while time.monotonic() - began < seconds:
                time.sleep(EVERY)
                if launched.poll() is not None:
                    raise SystemExit(f"the run ended by itself:\\n{(folder / 'output.txt').read_text()[-3000:]}")
                if time.monotonic() - began >= WARM:
                    look(launched.pid, life)
        finally:
            os.killpg(launched.pid, signal.SIGKILL)
            for rank in ranks_of(launched.pid):
                os.kill(rank, signal.SIGKILL)
            launched.wait()
    life.seconds, life.last_step = time.monotonic() - began, steps_of(run)
    timed = records_of(run / "timings.jsonl")
    timed = [record for record in timed if record["step"] >= life.first_step + FIRST_STEPS]
    life.steps = [record["step_seconds"] for record in timed if "step_seconds" in record]  # others are of evaluations
    return life


def look(launcher: int, life: Life) -> None:
    """Note memory, open files and threads of the ranks."""
    memory, files, threads = [], [], []
    for rank in ranks_of(launcher):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{rank}/status").read_text().splitlines() if ":" in line
        )
        memory.append(int(status["VmRSS"].split()[0]) / 1024)
        threads.append(int(status["Threads"]))
        files.append(len(os.listdir(f"/proc/{rank}/fd")))
    for kept, new in ((life.memory, memory), (life.files, files), (life.threads, threads)):
        kept.append(new)


def ranks_of(launcher: int) -> list[int]:
    """The processes of the ranks, which are in the session of the launcher."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if session == launcher and any(word.startswith(b"--local_rank=") for word in command):
                found.append(int(entry.name))
    return sorted(found)


def summary(lives: list[Life]) -> dict[str, float]:
    """Growth within lives, per minute, by least squares; and the largest figures."""
    growth = [slope(np.array(life.memory).sum(axis=1)) for life in lives if len(life.memory) > 2]
    steps = [seconds for life in lives for seconds in life.steps]
    thirds = [np.array_split(life.steps, 3) for life in lives if len(life.steps) >= 30]
    later = [np.median(last) / np.median(first) for first, _, last in thirds]
    files = [slope(np.array(life.files).sum(axis=1)) for life in lives if len(life.files) > 2]
    return {
        "memory of both ranks, largest MB": round(
            max((sum(one) for life in lives for one in life.memory), default=0), 1
        ),
        "growth of memory MB a minute": round(float(np.mean(growth)), 2) if growth else 0.0,
        "open files, largest": max((sum(one) for life in lives for one in life.files), default=0),
        "growth of open files a minute": round(float(np.mean(files)), 3) if files else 0.0,
        "threads, largest": max((sum(one) for life in lives for one in life.threads), default=0),
        "step, median s": round(float(np.median(steps)), 3) if steps else 0.0,
        "step, median of last third to that of first third of a life": round(float(np.mean(later)), 3)
        if later
        else 1.0,
        "steps a minute": round(
            sum(life.last_step - life.first_step for life in lives) / sum(life.seconds for life in lives) * 60, 1
        ),
    }


def slope(values: np.ndarray) -> float:
    return float(np.polyfit(np.arange(len(values)) * EVERY / 60, values, 1)[0])


def steps_of(run: Path) -> int:
    records = records_of(run / "metrics.jsonl")
    return int(records[-1]["step"]) + 1 if records else 0


def records_of(log: Path) -> list[dict]:
    """The lines of a log; none before the first step."""
    return read_records(log) if log.exists() else []


def draw_images(folder: Path, numbers: range, labeled: bool = False) -> None:
    """Fractals as JPEG files, in a folder of each class if they are labeled."""
    stream = make_stream("ifs", size=64, classes=CLASSES, seed=0)
    for start in range(numbers.start, numbers.stop, 200):
        indices = np.arange(start, min(start + 200, numbers.stop))
        batch = stream.batch(indices)
        for index, image, label in zip(indices, batch.images, batch.labels, strict=True):
            place = folder / f"class{label}" if labeled else folder
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{index:06d}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = run(given.minutes)
    print(json.dumps(result, indent=2))
    if given.json:
        content = {"benchmark": "study_soak", **result, "environment": environment()}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
