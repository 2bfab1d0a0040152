"""The loop, the engines, optimizers, schedules and checkpoints."""

from wildfern.registry import ENGINES, OPTIMIZERS, SCHEDULES
from wildfern.ssl.training.batch_reader import BatchReader
from wildfern.ssl.training.checkpoints import CheckpointStore
from wildfern.ssl.training.engine import Engine, TorchEngine
from wildfern.ssl.training.engines import EngineParts
from wildfern.ssl.training.finite import NotFinite
from wildfern.ssl.training.loop import LoopConfig, train, train_step
from wildfern.ssl.training.method_state import check_state
from wildfern.ssl.training.online_evaluation import OnlineEvaluation, SeveralOnlineEvaluations
from wildfern.ssl.training.online_knn import OnlineKNN
from wildfern.ssl.training.online_probe import OnlineProbe
from wildfern.ssl.training.optimizers import is_layer_wise
from wildfern.ssl.training.schedules import Schedule
from wildfern.ssl.training.stopping import StopRequest

__all__ = [
    "ENGINES",
    "OPTIMIZERS",
    "SCHEDULES",
    "BatchReader",
    "CheckpointStore",
    "Engine",
    "EngineParts",
    "LoopConfig",
    "NotFinite",
    "OnlineEvaluation",
    "OnlineKNN",
    "OnlineProbe",
    "Schedule",
    "SeveralOnlineEvaluations",
    "StopRequest",
    "TorchEngine",
    "check_state",
    "is_layer_wise",
    "train",
    "train_step",
]
