"""One row for each method, or each form of it: small arguments with which the tests that all methods share build it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wildfern.registry import load_plugin
from wildfern.ssl.methods import METHODS, Batch, Method
from wildfern.ssl.models import Backbone

IMAGES, CLASSES = 8, 5
PLUGINS = Path(__file__).parent / "plugins"
VIT = ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 2})
RESNET = (
    "resnet18",
    {"stem": "cifar", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "zero_init_last": False, "stem_width": 16},
)
# Changes to the quickstart recipe with which a method learns digits from their images, without labels.
DIGITS = [
    *["data={source: digits}", "views={name: simclr, size: 12, crop_scale: [0.4, 1.0], flip: 0.0, gray: 0.0}"],
    "model={backbone: resnet18, stem: cifar, arguments: {layers: [1, 1, 1, 0], channels: [16, 32, 48, 64], stem_width: 16}}",
    *["optimizer={name: adamw, learning_rate: 2.0e-3, weight_decay: 1.0e-4}", "training.batch_size=32"],
    *["training.steps=300", "training.log_every=50", "training.threads=1", "training.device=cpu"],
    "evaluation={on: [digits], protocols: [knn], few_shot: [], diagnostics: true}",
]
DIGITS_VIT = [
    *DIGITS,
    "model={backbone: vit_tiny_patch16_224, arguments: {img_size: 16, patch_size: 4, depth: 2, embed_dim: 48, num_heads: 3}}",
]


@dataclass(frozen=True)
class Case:
    """How tests build a method.

    views: (number, size in pixels) of each group of views.
    labels: what the batches have: None, "classes" or "multi_hot".
    recipe: changes to the quickstart recipe for 300 steps in which the method must learn; None: not trained there, since
        another row of the same method is, or since it does not learn representations of digits.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    backbone: tuple[str, Mapping[str, Any]] = RESNET
    views: tuple[tuple[int, int], ...] = ((2, 16),)
    labels: str | None = None
    masks: bool = False
    recipe: tuple[str, ...] | None = None


def digits(arguments: str, *changes: str, base: list[str] = DIGITS) -> tuple[str, ...]:
    """`Case.recipe` with `arguments` of the section `method`, as in YAML, and further changes."""
    return (*base, f"method={{{arguments}}}", *changes)


CASES = {
    # Contrastive and attracting methods
    "simclr": Case(
        "simclr",
        {"projection_hidden": 16, "projection_size": 8},
        recipe=digits("name: simclr, projection_hidden: 128, projection_size: 64"),
    ),
    "cacr": Case("cacr", {"projection_size": 8}, views=((4, 16),), recipe=digits("name: cacr, projection_size: 64")),
    "cacr_momentum": Case(
        "cacr_momentum",
        {"projection_hidden": 16, "projection_size": 8},
        views=((2, 16), (2, 8)),
        recipe=digits("name: cacr_momentum, temperature: 0.2, projection_hidden: 128, projection_size: 64"),
    ),
    # Contrastive and non-contrastive families
    # Statistics and clusters
    "swav": Case(
        "swav",
        {"prototypes": 12, "projection_hidden": 16, "projection_size": 8, "queue": 12, "queue_start": 0.5},
        views=((2, 16), (2, 8)),
        recipe=digits(
            "name: swav, prototypes: 64, sinkhorn_temperature: 0.03, freeze_prototypes: 0.1, projection_hidden: 128, "
            "projection_size: 32"
        ),
    ),
    "barlow_twins": Case(
        "barlow_twins",
        # Embeddings of few images vary little at first, so that the unscaled loss has gradients too large for float32 here.
        {"scale": 1e-5, "projection_hidden": 16, "projection_size": 8, "bias_learning_rate": 0.5},
        recipe=digits("name: barlow_twins, scale: 0.1, projection_hidden: 128, projection_size: 128"),
    ),
    "vicreg": Case(
        "vicreg",
        # The usual ratio; with 25 the rounding of gradients that cancel out is above what float32 engines may differ by.
        {"invariance": 1.0, "variance": 1.0, "covariance": 0.04, "projection_hidden": 16, "projection_size": 8},
        recipe=digits("name: vicreg, projection_hidden: 128, projection_size: 128"),
    ),
    "lejepa": Case(
        "lejepa",
        {"slices": 6, "projection_hidden": 16, "projection_size": 8},
        views=((2, 16), (2, 8)),
        recipe=digits("name: lejepa, slices: 64, projection_hidden: 128, projection_size: 16"),
    ),
    # Distillation
    "dino": Case(
        "dino",
        {"prototypes": 12, "head_hidden": 16, "head_bottleneck": 8},
        views=((2, 16), (2, 8)),
        recipe=digits(
            "name: dino, prototypes: 64, head_hidden: 128, head_bottleneck: 32, head_batch_norm: true, momentum: 0.99, "
            "teacher_temperature: 0.02, teacher_temperature_start: 0.02"
        ),
    ),
    # Masked and predictive methods
    "mae": Case("mae", {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}, VIT),
    # Labels and pretexts of rendered images
    "one label": Case("supervised", {"classes": CLASSES}, labels="classes"),
    "several labels": Case("supervised", {"classes": CLASSES}, labels="multi_hot"),
    # Plugins
    "queue": Case("queue_contrast", {"length": 12}),
    "masks": Case("toy_segmentation", {"channels": 8}, masks=True),
}
TRAINED = [name for name, case in CASES.items() if case.recipe is not None]


def load(name: str) -> None:
    """Load the plugin of `tests/plugins` that registers this method, unless it is registered."""
    if name not in METHODS and (PLUGINS / f"{name}.py").is_file():
        load_plugin(PLUGINS / f"{name}.py")


def build(name: str, steps: int, dtype: torch.dtype = torch.float64) -> Method:
    """The method of a row, the same in every call."""
    case = CASES[name]
    load(case.method)
    torch.manual_seed(0)
    backbone, arguments = case.backbone
    method = METHODS[case.method](Backbone(backbone, **arguments), steps, **case.arguments).to(dtype)
    for teacher in method.teachers().values():
        teacher.to(dtype)
    return method


def batch(
    name: str,
    step: int,
    rank: int = 0,
    world_size: int = 1,
    dtype: torch.dtype = torch.float64,
    share_seeds: bool = True,
) -> Batch:
    """This rank's part of the `IMAGES` images of a step."""
    case, generator = CASES[name], torch.Generator().manual_seed(step)
    views = [torch.randn(v, IMAGES, 3, s, s, generator=generator, dtype=torch.float64).to(dtype) for v, s in case.views]
    masks = [torch.randint(0, 2, (v, IMAGES, s, s), generator=generator, dtype=torch.uint8) for v, s in case.views]
    labels = torch.randint(-1, CLASSES, (IMAGES,), generator=generator)
    if case.labels == "multi_hot":
        labels = torch.randint(0, 2, (IMAGES, CLASSES), generator=generator, dtype=torch.uint8)
    mine = slice(rank * IMAGES // world_size, (rank + 1) * IMAGES // world_size)
    return Batch.from_views(
        [group[:, mine] for group in views],
        labels=None if case.labels is None else labels[mine],
        masks=[group[:, mine] for group in masks] if case.masks else None,
        step=step,
        positions=torch.arange(IMAGES)[mine] if share_seeds else None,
    )
