"""A user's program for mypy, to check the types of public functions. It is not run."""

from pathlib import Path
from typing import assert_type

import numpy as np
from torch import Tensor

import wildfern
from wildfern.generators import ImageBatch, Stream, make_stream
from wildfern.launch import evaluate, pretrain
from wildfern.ssl.evaluation import EvaluationResult
from wildfern.ssl.losses import CACRTerms

run = pretrain("quickstart", ["training.steps=10"], run="runs/mine", resume=True)
assert_type(run, Path)
assert_type(wildfern.pretrain(Path("recipe.yaml")), Path)
assert_type(evaluate(run, on=["digits"], protocols=["linear"]), EvaluationResult)
assert_type(wildfern.__version__, str)

stream = make_stream("ifs", size=64)
assert_type(stream, Stream)
assert_type(stream.batch(np.arange(4)), ImageBatch)


def total(terms: CACRTerms) -> Tensor:
    return terms.attraction + terms.repulsion
