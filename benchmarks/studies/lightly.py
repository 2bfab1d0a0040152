"""SimCLR by wildfern and by lightly's own loop: the same first weights, views, batches and steps.

    python -m wildfern.benchmarks.studies.lightly --cifar10 parquet:PATH

lightly's loop is that of its documentation: its transform on PIL images, head and loss, in float32. wildfern runs a recipe as a
user would, with its own views, bf16 where the processor has it, and no weight decay on biases and normalization.
"""

import json
import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildfern.benchmarks.studies.study import (
    PROTOCOLS,
    SMALL_RESNET,
    Arm,
    Study,
    check,
    cifar10,
    command,
    outcome,
    quoted,
    scored,
    train,
)
from wildfern.files import replacing
from wildfern.launch.errors import RunError

STEPS, BATCH, RATE, TEMPERATURE, HIDDEN, SIZE = 300, 128, 0.06, 0.5, 512, 128
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
SETTINGS = {"size": 32, "crop_scale": [0.2, 1.0], "flip": 0.5, "blur": 0.0, **JITTER}
LIGHTLY = "lightly's loop"


def study(given: Namespace) -> Study:
    """Two arms, of which one is a recipe."""
    steps = given.steps or STEPS
    views = ", ".join(f"{name}: {value}" for name, value in SETTINGS.items())
    changes = [
        f"data={{source: {quoted(given.cifar10)}}}",
        f"views={{name: simclr, {views}}}",
        f"model={SMALL_RESNET}",
        f"method={{name: simclr, temperature: {TEMPERATURE}, projection_hidden: {HIDDEN}, projection_size: {SIZE}}}",
        f"optimizer={{name: sgd, learning_rate: {RATE}, momentum: 0.9, weight_decay: 5.0e-4}}",
        "schedule={name: cosine, warmup: 0.0}",
        f"training={{steps: {steps}, batch_size: {BATCH}, log_every: 50, checkpoint_every: {steps}}}",
    ]
    return Study(
        "lightly",
        f"SimCLR on CIFAR-10, {steps} steps of {BATCH} images, SGD with a cosine schedule, a narrow ResNet-18 from the same "
        "first weights; linear probe and kNN on frozen features after the last step, on 10 000 training images and all test "
        "images.",
        [Arm("wildfern", changes), Arm(LIGHTLY, [], recipe=None)],
        cifar10(given.cifar10),
        ("cifar10", "linear"),
        {given.cifar10: "cifar10"},
    )


def run(study: Study, seeds: Sequence[int], folder: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Train both arms with every seed, and evaluate them together; what is trained is not trained again.

    Raises errors as the `run` of other studies, and RunError for changes that lightly's loop would not follow.
    """
    from wildfern.launch.device import choose_device
    from wildfern.launch.evaluated import of_run
    from wildfern.launch.evaluation_data import evaluation_sources
    from wildfern.launch.protocols import check_request
    from wildfern.launch.run_folder import RunFolder
    from wildfern.ssl.evaluation import evaluate_backbones

    if len(study.arms) != 2 or any(not change.startswith("training.") for change in changes):
        raise RunError(
            "both arms are needed, and only training.KEY=VALUE can be changed: lightly's loop would not follow"
        )
    check(study, seeds, folder, changes)
    rows = []
    for seed in seeds:
        path = RunFolder.for_reading(train(study, study.arms[0], seed, folder, changes))
        recipe = path.recipe()
        device = choose_device(recipe.training.device)
        start = train_lightly(recipe, folder / f"seed={seed}" / "lightly.safetensors", device)
        models = of_run(path, recipe, start, device)
        datasets, evaluators = check_request([*study.on.values()], PROTOCOLS)
        names = {dataset.label: name for dataset, name in zip(datasets, study.on, strict=True)}
        for label, (train_source, test_source) in evaluation_sources(datasets).items():
            result = evaluate_backbones(
                {name: model.backbone for name, model in models.items()},
                train_source,
                test_source,
                dataset=label,
                evaluators=evaluators,
                preprocessing=models["pretrained"].preprocessing,
            )
            for row in result.main_rows():
                if row["backbone"] != "random":
                    arm = {"pretrained": "wildfern", "start": LIGHTLY}[row["backbone"]]
                    rows.append(
                        {**scored(result, row, names), "group": "", "arm": arm, "network": recipe.model.backbone}
                    )
    return outcome(study, seeds, changes, rows)


def train_lightly(recipe: Any, file: Path, device: Any) -> Any:
    """The backbone of lightly's loop with the recipe's data, first weights and budget; kept in `file`."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from wildfern.benchmarks.lightly_loop import LightlyLoop, SimCLRModel
    from wildfern.launch.backbones import recipe_backbone
    from wildfern.ssl.data import open_source

    backbone = recipe_backbone(recipe)
    settings = json.dumps(recipe.as_dict(), default=str, sort_keys=True)
    if (kept := _kept(file, settings)) is None:
        source, steps = open_source(recipe.data[0].source), recipe.training.steps
        images = source.read(np.arange(source.num_items)).pixels
        torch.manual_seed(recipe.seed)
        loop = LightlyLoop(
            images,
            SimCLRModel(backbone, HIDDEN, SIZE),
            SETTINGS,
            TEMPERATURE,
            recipe.training.batch_size,
            device,
            epoch=len(images),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=5e-4),
        )
        print(f"\n== {LIGHTLY}, seed {recipe.seed}", flush=True)
        for step in range(steps):
            loop.optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            loss = loop()
            if step % 50 == 0 or step + 1 == steps:
                print(f"step {step + 1}/{steps}  loss {loss:.4f}", flush=True)
        loop.close()
        kept = {name: value.cpu() for name, value in backbone.network.state_dict().items()}
        with replacing(file) as beside:
            save_file(kept, beside, {"recipe": settings})
    backbone.network.load_state_dict(kept)
    return backbone


def _kept(file: Path, settings: str) -> Any:
    """The weights in `file`; None if there is none. Raises RunError for weights of other settings, or damaged ones."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(file, "pt") as kept:
            if (kept.metadata() or {}).get("recipe") == settings:
                return load_file(file)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} is damaged: remove it ({error})") from error
    raise RunError(f"{file} was trained with other settings: choose another folder with --runs")


if __name__ == "__main__":
    command(study, "lightly", __doc__, run)
