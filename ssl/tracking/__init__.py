"""Records and progress of a run: JSON lines, the terminal, Weights & Biases, the environment."""

from .console import TrainingDisplay
from .environment import environment
from .jsonl import JsonLines, read_records, read_undamaged
from .throughput import Throughput
from .tracker import Tracker
from .wandb_run import WandbRun

__all__ = [
    "JsonLines",
    "Throughput",
    "Tracker",
    "TrainingDisplay",
    "WandbRun",
    "environment",
    "read_records",
    "read_undamaged",
]
