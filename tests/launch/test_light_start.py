"""Commands import torch._dynamo and wandb at their first use, and these work then."""

import subprocess
import sys

PROGRAM = """
import sys
from wildfern.launch.light_start import defer_imports

defer_imports()
import torch, timm, torchvision
import wildfern.launch.training_run

def loaded():
    return ["torch._dynamo.symbolic_convert" in sys.modules, "wandb.sdk" in sys.modules]

layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
disabled = torch.compiler.disable(lambda x: x + 1)
assert disabled(1) == 2
assert loaded() == [False, False], loaded()
assert "matplotlib" not in sys.modules

import wandb
assert wandb.__version__ and wandb.Settings and timm.utils.summary.wandb.Settings is wandb.Settings
assert loaded() == [False, True], loaded()

from torch._dynamo import trace_rules
from torch._dynamo.utils import counters
assert loaded() == [True, True] and trace_rules.torch is torch
assert torch._dynamo.config.cache_size_limit and disabled(1) == 2
compiled = torch.compile(lambda x: 2 * disabled(x), backend="eager")
assert compiled(torch.ones(1)).item() == 4
assert counters["graph_break"], "the function is left out of what is compiled"
optimizer.step()
assert torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2).shape == (1, 1, 2, 2)
"""


def test_deferred_packages_are_loaded_at_their_first_use():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
