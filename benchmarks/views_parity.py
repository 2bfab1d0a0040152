"""Do the views of kornia, torchvision (on PIL images) and wildfern train equally well? One short SimCLR run with each.

Everything else is the same: images in the same order, network, loss, steps. Users who moved augmentation to the device lost
accuracy because operations differed in meaning; if ours agree with torchvision's, accuracies agree within the noise of seeds.

    python -m wildfern.benchmarks.views_parity --data parquet:cifar10 --seeds 3 --steps 200 --json views_parity.json
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wildfern.benchmarks.augmentation import kornia_chain, torchvision_chain
from wildfern.generators.counter_rng import key
from wildfern.ssl.augmentation import simclr
from wildfern.ssl.data import Mixture, open_source
from wildfern.ssl.evaluation import extract_features, knn, linear_probe
from wildfern.ssl.methods import Batch, SimCLR
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import environment

SIZE, BATCH, LEARNING_RATE = 32, 128, 2e-3
NARROW = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256], "zero_init_last": False}
MakeViews = Callable[[np.ndarray, int, int], Tensor]  # images, seed, step -> float32[2, n, 3, 32, 32]


def makers() -> dict[str, MakeViews]:
    """The three implementations: images uint8[n, 32, 32, 3], seed and step to float32[2, n, 3, 32, 32]."""
    on_device, plain, transform = simclr(size=SIZE), kornia_chain(SIZE), torchvision_chain(SIZE)

    def ours(pixels: np.ndarray, seed: int, step: int) -> Tensor:
        return on_device(on_device.prepare(pixels, seed, step, np.arange(len(pixels))))[0]

    def kornia(pixels: np.ndarray, seed: int, step: int) -> Tensor:
        torch.manual_seed(key("kornia", seed, step))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        return plain(torch.cat([images, images])).unflatten(0, (2, -1))

    def torchvision(pixels: np.ndarray, seed: int, step: int) -> Tensor:
        torch.manual_seed(key("torchvision", seed, step))
        images = [Image.fromarray(p) for p in pixels]
        return torch.stack([transform(p) for _ in range(2) for p in images]).unflatten(0, (2, -1))

    return {"torchvision": torchvision, "kornia": kornia, "wildfern": ours}


def train(make: MakeViews, source, seed: int, steps: int) -> torch.nn.Module:
    """A narrow ResNet after `steps` of SimCLR (AdamW, cosine schedule, bf16 autocast) with these views."""
    torch.manual_seed(key("parity", seed))
    backbone = Backbone("resnet18", stem="cifar", **NARROW)
    method = SimCLR(backbone, steps, temperature=0.2, projection_hidden=512)
    method.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(method.parameters(), LEARNING_RATE, weight_decay=1e-4)
    images = Mixture([(source, 1.0)], seed)
    for step in range(steps):
        views = make(images.read(np.arange(step * BATCH, (step + 1) * BATCH)).pixels, seed, step)
        views = views.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (2, -1))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.autocast("cpu", torch.bfloat16):
            loss = method(Batch.from_views([views], step=step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return backbone


def measure(backbone: torch.nn.Module, train_source, test_source) -> dict[str, float]:
    """Accuracies in percent, on frozen features: linear probe and kNN, of 10 000 training images and all test images."""
    features = []
    for source, most in ((train_source, 10_000), (test_source, 10_000)):
        images = source.read(np.arange(min(most, source.num_items)))
        features.append(extract_features(backbone, [(images.pixels, images.labels)], size=SIZE))
    linear = linear_probe(*features, strengths=(1e-4, 1e-3, 1e-2))
    return {"linear": 100 * linear.accuracy, "knn": 100 * knn(*features).accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="parquet:cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    train_source, test_source = (open_source(given.data, split) for split in ("train", "test"))
    rows = []
    for seed in range(given.seeds):
        for name, make in makers().items():
            began = time.perf_counter()
            backbone = train(make, train_source, seed, given.steps)
            seconds = time.perf_counter() - began
            rows.append({"views": name, "seed": seed, "seconds": round(seconds, 1)})
            rows[-1] |= {what: round(value, 2) for what, value in measure(backbone, train_source, test_source).items()}
            print(rows[-1], flush=True)
    summary = {}
    for name in makers():
        for what in ("linear", "knn"):
            values = np.array([row[what] for row in rows if row["views"] == name])
            spread = round(float(values.std(ddof=1)), 2) if len(values) > 1 else None
            summary.setdefault(name, {})[what] = {"mean": round(float(values.mean()), 2), "std": spread}
    print(json.dumps(summary, indent=2))
    if given.json:
        settings = {"benchmark": "views_parity", "data": given.data, "steps": given.steps, "batch_size": BATCH}
        text = json.dumps(settings | {"summary": summary, "rows": rows, "environment": environment()}, indent=2)
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
