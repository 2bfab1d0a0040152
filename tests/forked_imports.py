"""What training runs import, and the kernels of their images: loaded once, by the process that runs are forked from."""

import os
from importlib import import_module

import numpy as np

from wildfern.generators import make_stream
from wildfern.ssl.augmentation import simclr

IMPORTED = [
    "wildfern.launch.cli",
    "wildfern.launch.training_run",
    "matplotlib.backends.backend_svg",
    "deepspeed.module_inject",
    "deepspeed.runtime.zero.muon.original_muon",  # imported by `initialize`, and torch's compiler with it
]


def load() -> None:
    """Import the modules, and render and crop two images."""
    for name in IMPORTED:
        import_module(name)
    positions = np.arange(2)
    views = simclr(size=32)
    images = make_stream("ifs", size=32, points=200).batch(positions).images
    views(views.prepare(images, seed=0, step=0, positions=positions))


if here := os.environ.pop("PYTHONPATH", ""):
    inherited = here.partition(os.pathsep)[2]  # without the folder of this file
    if inherited:
        os.environ["PYTHONPATH"] = inherited
load()
