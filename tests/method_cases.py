"""One row for each method, or each form of it: small arguments with which the tests that all methods share build it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wildfern.registry import load_plugin
from wildfern.ssl.methods import METHODS, Batch, Method
from wildfern.ssl.models import Backbone

IMAGES, CLASSES, PARAMETERS = 8, 5, 3
PLUGINS = Path(__file__).parent / "plugins"
VIT = ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 2})
VIT_SIZES = (VIT[0], {**VIT[1], "dynamic_img_size": True})  # takes views of several sizes
UNET = ("unet", {"widths": [6, 8, 10]})
RESNET = (
    "resnet18",
    {"stem": "cifar", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "zero_init_last": False, "stem_width": 16},
)
# Changes to the quickstart recipe with which a method learns digits from their images, without labels.
DIGITS = [
    *["data={source: digits}", "views={name: simclr, size: 12, crop_scale: [0.4, 1.0], flip: 0.0, gray: 0.0}"],
    "model={backbone: resnet18, stem: cifar, arguments: {layers: [1, 1, 0, 0], channels: [16, 32, 48, 64], stem_width: 16}}",
    *["optimizer={name: adamw, learning_rate: 2.0e-3, weight_decay: 1.0e-4}", "training.batch_size=16"],
    *["training.steps=300", "training.log_every=50", "training.threads=1", "training.device=cpu"],
    "evaluation={on: [digits], protocols: [knn], few_shot: []}",
]
DIGITS_VIT = [
    *(change for change in DIGITS if not change.startswith("model")),
    "views={name: simclr, size: 16, crop_scale: [0.4, 1.0], flip: 0.0, gray: 0.0}",
    "model={backbone: vit_tiny_patch16_224, arguments: {img_size: 16, patch_size: 4, depth: 2, embed_dim: 48, num_heads: 3}}",
    "training.batch_size=32",
]
# Token methods with so few steps: crops of one appearance, and the average of tokens in place of a class token.
DIGITS_TOKENS = [
    *DIGITS_VIT,
    "views={name: simclr, size: 16, crop_scale: [0.6, 1.0], flip: 0.0, gray: 0.0, jitter: 0.0, blur: 0.0}",
    "model.arguments={class_token: false, global_pool: avg, fc_norm: false}",
]
# For methods that predict patches: small ones, one view that is only cropped, and the average of tokens as the feature.
DIGITS_PATCHES = [
    *(change for change in DIGITS if not change.startswith("model")),
    "views={name: simclr, count: 1, size: 12, crop_scale: [0.5, 1.0], flip: 0.0, gray: 0.0, jitter: 0.0, blur: 0.0}",
    "model={backbone: vit_tiny_patch16_224, arguments: {img_size: 12, patch_size: 3, depth: 1, embed_dim: 48, num_heads: 3, "
    "class_token: false, global_pool: avg, fc_norm: false}}",
]


@dataclass(frozen=True)
class Case:
    """How tests build a method.

    views: (number, size in pixels) of each group of views.
    labels: what the batches have: None, "classes" or "multi_hot". masks, items, parameters: whether they have them.
    unmasked: whether every second image is of a source without masks. prepare: changes the method after it was made.
    recipe: changes to the quickstart recipe for 300 steps in which the method must learn; None: not trained there, since
        another row of the same method is, or since it does not learn representations of digits.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    backbone: tuple[str, Mapping[str, Any]] = RESNET
    views: tuple[tuple[int, int], ...] = ((2, 16),)
    labels: str | None = None
    prepare: Callable[[Method], None] | None = None
    masks: bool = False
    unmasked: bool = False
    items: bool = False
    parameters: bool = False
    recipe: tuple[str, ...] | None = None


def spread_predictions(method: Method) -> None:
    """Make some pixels of images at random weights likely to be of an object, and some unlikely."""
    with torch.no_grad():
        method.decoder.classify.weight.mul_(12)
        method.decoder.classify.bias.fill_(3.0)


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
    "cacr rbf": Case("cacr", {"projection_size": 8, "cost": "rbf", "detach_weights": True}, views=((3, 16),)),
    "cacr debiased": Case("cacr", {"projection_size": 8, "debias": 0.1}, views=((2, 16), (1, 8))),
    "cacr_momentum full": Case(
        "cacr_momentum",
        {"projection_hidden": 16, "projection_size": 8, "cost": "euclidean", "keys": "full", "predictor_norm": False},
        views=((2, 16), (2, 8)),
    ),
    "cacr_queue": Case(
        "cacr_queue",
        {"projection_hidden": 16, "projection_size": 8, "queue": 12},
        views=((3, 16),),
        recipe=digits("name: cacr_queue, projection_hidden: 128, projection_size: 64, queue: 256, momentum: 0.99"),
    ),
    # Contrastive and non-contrastive families
    "moco_v2": Case(
        "moco_v2",
        {"queue_length": 12, "projection_hidden": 16, "projection_size": 8},
        recipe=digits("name: moco_v2, momentum: 0.99, queue_length: 1024, projection_hidden: 128, projection_size: 64"),
    ),
    "moco_v2 symmetric": Case(
        "moco_v2", {"queue_length": 12, "symmetric": True, "projection_hidden": 16, "projection_size": 8}
    ),
    "moco_v3": Case(
        "moco_v3",
        {"projection_hidden": 16, "projection_size": 8, "freeze_patch_embedding": True},
        VIT,
        recipe=digits("name: moco_v3, projection_layers: 2, projection_hidden: 128, projection_size: 64"),
    ),
    "byol": Case(
        "byol",
        {"projection_hidden": 16, "projection_size": 8, "predictor_hidden": 16, "predictor_rate": 2.0},
        recipe=digits("name: byol, momentum: 0.97, projection_hidden: 128, projection_size: 64, predictor_hidden: 128"),
    ),
    "simsiam": Case(
        "simsiam",
        {"projection_hidden": 16, "projection_size": 8, "predictor_hidden": 8},
        recipe=digits(
            "name: simsiam, projection_hidden: 128, projection_size: 128, predictor_hidden: 32",
            "training.batch_size=32",
        ),
    ),
    "nnclr": Case(
        "nnclr",
        {"queue_length": 12, "projection_hidden": 16, "projection_size": 8, "predictor_hidden": 16},
        recipe=digits(
            "name: nnclr, queue_length: 1024, projection_hidden: 128, projection_size: 64, predictor_hidden: 128"
        ),
    ),
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
        # Embeddings of few images vary little at first: the gradients of the unscaled loss are large.
        {"projection_hidden": 16, "projection_size": 8, "bias_learning_rate": 0.5, "scale": 1e-3},
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
    "distillation": Case(
        "distillation",
        {
            **{"teacher": RESNET[0], "teacher_weights": "random", "teacher_arguments": dict(RESNET[1])},
            "projection_hidden": 16,
        },
        views=((2, 16), (1, 8)),
        recipe=digits(
            # A teacher with one patch, a random function of all pixels, whose features are good ones for digits.
            "name: distillation, teacher: vit_tiny_patch16_224, teacher_weights: random, projection_hidden: 128, "
            "teacher_arguments: {img_size: 16, depth: 1, embed_dim: 96, num_heads: 3, class_token: false, global_pool: avg, "
            "fc_norm: false}",
            base=DIGITS_TOKENS,
        ),
    ),
    "distillation of tokens": Case(
        "distillation",
        {
            **{"teacher": VIT[0], "teacher_weights": "random", "teacher_arguments": {**VIT[1], "embed_dim": 32}},
            **{"tokens": True, "projection_hidden": 16},
        },
        VIT,
    ),
    "distillation of similarities": Case(
        "distillation",
        {
            **{"teacher": RESNET[0], "teacher_weights": "random", "teacher_arguments": dict(RESNET[1])},
            **{"objective": "similarities", "projection_hidden": 16, "queue_length": 12},
        },
    ),
    # Masked and predictive methods
    "ibot": Case(
        "ibot",
        {"prototypes": 12, "head_hidden": 16, "head_bottleneck": 8},
        VIT_SIZES,
        views=((2, 16), (2, 8)),
        recipe=digits(
            "name: ibot, prototypes: 64, head_hidden: 128, head_bottleneck: 32, momentum: 0.95, center_momentum: 0.5, "
            "teacher_temperature: 0.02, teacher_temperature_start: 0.02, patch_temperature: 0.02, patch_temperature_start: 0.02",
            *["optimizer.learning_rate=1.0e-3", "optimizer.weight_decay=0.1", "training.gradient_clip=0.3"],
            base=DIGITS_TOKENS,
        ),
    ),
    "dinov2": Case(
        "dinov2",
        {
            **{"prototypes": 12, "patch_prototypes": 10, "head_hidden": 16, "head_bottleneck": 8, "layer_decay": 0.5},
            # A small temperature and small distances multiply the rounding errors of float32.
            **{"teacher_temperature": 0.3, "teacher_temperature_start": 0.2, "koleo_weight": 0.01},
        },
        VIT_SIZES,
        views=((2, 16), (2, 8)),
        recipe=digits(
            "name: dinov2, prototypes: 64, patch_prototypes: 64, head_hidden: 128, head_bottleneck: 32, momentum: 0.9, "
            "teacher_temperature: 0.02, teacher_temperature_start: 0.02",
            base=DIGITS_VIT,
        ),
    ),
    "mae": Case(
        "mae",
        {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
        VIT,
        recipe=digits("name: mae, decoder_width: 32, decoder_depth: 1, decoder_heads: 2", base=DIGITS_PATCHES),
    ),
    "simmim": Case("simmim", {"mask_size": 8}, VIT, recipe=digits("name: simmim, mask_size: 3", base=DIGITS_PATCHES)),
    "ijepa": Case(
        "ijepa",
        {"predictor_width": 16, "predictor_depth": 1, "predictor_heads": 2, "targets": 2},
        VIT,
        recipe=digits(
            "name: ijepa, predictor_width: 48, predictor_depth: 2, predictor_heads: 2, momentum: 0.99",
            "optimizer.learning_rate=1.0e-3",
            base=DIGITS_PATCHES,
        ),
    ),
    "denoising_autoencoder": Case(
        "denoising_autoencoder",
        {"decoder_width": 8, "masked": 0.2, "decoder_stages": 2},
        views=((1, 16),),
        recipe=digits(
            "name: denoising_autoencoder, decoder_width: 32, decoder_stages: 2",
            "views={name: simclr, size: 12, count: 1, crop_scale: [0.6, 1.0], flip: 0.0, jitter: 0.0, gray: 0.0, blur: 0.0}",
        ),
    ),
    # Labels and pretexts of rendered images
    "one label": Case("supervised", {"classes": CLASSES}, labels="classes"),
    "several labels": Case("supervised", {"classes": CLASSES}, labels="multi_hot"),
    "instance_identity": Case(
        "instance_identity",
        {"instances": IMAGES * 4, "projection_hidden": 16, "projection_size": 8},
        items=True,
        recipe=digits("name: instance_identity, instances: 1258, projection_hidden: 256, projection_size: 128"),
    ),
    "instance_identity, linear": Case("instance_identity", {"instances": IMAGES * 4, "temperature": None}, items=True),
    "parameter_regression": Case(
        "parameter_regression",
        {"parameters": PARAMETERS},
        views=((1, 16),),
        parameters=True,
    ),
    # Segmentation from rendered masks
    "freecos": Case(
        "freecos",
        # Few pixels are confident at first; with .51 all three losses act from the first step.
        {
            "discriminator_width": 4,
            "contrast_width": 8,
            "confident": 0.51,
            "contrast_pixels": 20,
            "negatives": 30,
            "contrast": 0.2,
        },
        UNET,
        views=((1, 32),),
        masks=True,
        unmasked=True,
        prepare=spread_predictions,
    ),
    "freecos, masks alone": Case(
        "freecos",
        {
            "adversarial": 0.0,
            "contrast": 0.0,
            "decoder": "fpn",
            "decoder_width": 8,
            "cross_entropy": 1.0,
            "foreground_weight": 12.0,
        },
        views=((1, 16),),
        masks=True,
    ),
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
    for network in method.networks():
        network.to(dtype)
    if case.prepare is not None:
        case.prepare(method)
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
    parameters = torch.randn(IMAGES, PARAMETERS, generator=generator)
    parameters[0] = torch.nan  # of an image that was not rendered
    masked = torch.arange(IMAGES) % 2 == 0 if case.unmasked else torch.ones(IMAGES, dtype=torch.bool)
    for group in masks:
        group[:, ~masked] = 0
    mine = slice(rank * IMAGES // world_size, (rank + 1) * IMAGES // world_size)
    return Batch.from_views(
        [group[:, mine] for group in views],
        labels=None if case.labels is None else labels[mine],
        masks=[group[:, mine] for group in masks] if case.masks else None,
        masked=masked[mine] if case.masks else None,
        step=step,
        items=torch.arange(-1, IMAGES - 1)[mine] if case.items else None,  # the first is of an endless source
        parameters=parameters[mine] if case.parameters else None,
        positions=torch.arange(IMAGES)[mine] if share_seeds else None,
    )
