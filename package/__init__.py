"""Self-supervised pretraining of vision backbones on rendered and uncurated images.

import wildfern
run = wildfern.pretrain("quickstart", ["training.steps=100"])
backbone = wildfern.load_backbone(run)

Importing this package imports nothing else: torch and the rest are loaded when a name is first used.
"""

import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wildfern.generators import make_stream
    from wildfern.launch.evaluating import evaluate
    from wildfern.launch.loaded_backbone import load_backbone
    from wildfern.launch.training_run import pretrain
    from wildfern.ssl.data import open_source

    __version__: str

_HOMES = {
    "evaluate": "wildfern.launch",
    "load_backbone": "wildfern.launch",
    "make_stream": "wildfern.generators",
    "open_source": "wildfern.ssl.data",
    "pretrain": "wildfern.launch",
}
__all__ = ["__version__", "evaluate", "load_backbone", "make_stream", "open_source", "pretrain"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("wildfern")
    if name in _HOMES:
        if "IPython" in sys.modules:  # progress in notebooks is our own: it does not need the widgets that tqdm misses
            warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
