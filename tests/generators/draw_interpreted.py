"""Renders batches with the GPU kernels in Triton's interpreter, on the CPU: cases from stdin, arrays to a file.

It is a program of its own because the interpreter must be chosen before triton is first imported. For this processor to stand
in for a GPU, only the search for one is replaced.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch

from wildfern.generators import make_stream
from wildfern.generators.triton_renderer import gpu, renderer

gpu.find_gpu = lambda device: torch.device("cpu")
launch = renderer.Renderer._launch


def main() -> None:
    arrays = {}
    for name, case in json.load(sys.stdin).items():
        shown = []  # objects with enough visible before each further attempt

        def watch(self, kernel, grid, warps, *arguments, _shown=shown, **constants):
            launch(self, kernel, grid, warps, *arguments, **constants)
            if kernel.__name__ == "judge":
                _shown.append(int(arguments[5].sum()))

        renderer.Renderer._launch = watch
        renderer.MEMORY = case["memory"]
        stream = make_stream(case["stream"], device="cuda", **case["arguments"])
        batch = stream.batch(np.array(case["indices"]))
        for field, array in batch.arrays().items():
            arrays[f"{name}/{field}"] = array.numpy() if isinstance(array, torch.Tensor) else array
        arrays[f"{name}/shown"] = np.array(shown)
    np.savez(sys.argv[1], **arrays)


main()
