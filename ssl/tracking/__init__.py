"""Records and progress of a run: JSON lines, the terminal, Weights & Biases, the environment."""

from .console import TrainingDisplay
from .environment import environment
from .jsonl import JsonLines, read_records, read_undamaged
from .progress import Progress, progress_of
from .progress_line import progress_line
from .throughput import Throughput
from .tracker import Tracker
from .wandb_run import WandbRun

__all__ = [
    "JsonLines",
    "Progress",
    "Throughput",
    "Tracker",
    "TrainingDisplay",
    "WandbRun",
    "environment",
    "progress_line",
    "progress_of",
    "read_records",
    "read_undamaged",
]
