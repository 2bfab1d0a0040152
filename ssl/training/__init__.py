"""The loop, the engines, optimizers, schedules and checkpoints."""

from wildfern.ssl.training.batch_reader import BatchReader
from wildfern.ssl.training.checkpoints import CheckpointStore
from wildfern.ssl.training.engine import Engine, TorchEngine
from wildfern.ssl.training.finite import NotFinite
from wildfern.ssl.training.loop import LoopConfig, train, train_step
from wildfern.ssl.training.online_probe import OnlineProbe
from wildfern.ssl.training.optimizers import LAYER_WISE, OPTIMIZERS
from wildfern.ssl.training.schedules import SCHEDULES
from wildfern.ssl.training.stopping import StopRequest

__all__ = [
    "LAYER_WISE",
    "OPTIMIZERS",
    "SCHEDULES",
    "BatchReader",
    "CheckpointStore",
    "Engine",
    "LoopConfig",
    "NotFinite",
    "OnlineProbe",
    "StopRequest",
    "TorchEngine",
    "train",
    "train_step",
]
