"""Every method at the same budget on the same images, so that a reader can choose: ResNets, and vision transformers.

    python -m wildfern.benchmarks.studies.methods --cifar10 parquet:PATH

Each step has 256 views of CIFAR-10. Networks and heads are small, for a computer without a GPU; temperatures and weights are
those of the recipes for CIFAR-10, and momentum teachers and prototypes follow faster, as the run is short. `distillation` needs
a trained teacher, and `parameter_regression` rendered images: both are left out.
"""

from argparse import Namespace

from wildfern.benchmarks.studies.study import SMALL_RESNET, Arm, Study, cifar10, command, quoted

STEPS, VIEWS = 200, 256
HEAD = "projection_hidden: 512, projection_size: 128"
PREDICTOR = f"{HEAD}, predictor_hidden: 512"
WIDE = "projection_hidden: 512, projection_size: 512"
PROTOTYPES = "prototypes: 512, head_hidden: 512, head_bottleneck: 128, momentum: 0.97"
VIT = (
    "{backbone: vit_tiny_patch16_224, arguments: {img_size: 32, patch_size: 4, depth: 2, embed_dim: 64, num_heads: 2, "
    "class_token: false, global_pool: avg, fc_norm: false}}"
)
# Name in the table: (views of an image, section `method`).
RESNETS = {
    "supervised (with labels)": (2, "name: supervised, classes: 10"),
    "simclr": (2, f"name: simclr, temperature: 0.5, {HEAD}"),
    "cacr, K = 1": (2, "name: cacr, tau_neg: 0.9, projection: linear, projection_size: 128"),
    "cacr, K = 3": (4, "name: cacr, tau_neg: 0.9, projection: linear, projection_size: 128"),
    "cacr_queue": (2, f"name: cacr_queue, {HEAD}, queue: 4096, momentum: 0.97"),
    "cacr_momentum": (2, f"name: cacr_momentum, cost: euclidean, predictor_norm: false, {HEAD}"),
    "moco_v2": (2, f"name: moco_v2, temperature: 0.1, queue_length: 4096, momentum: 0.97, symmetric: true, {HEAD}"),
    "moco_v3": (2, f"name: moco_v3, temperature: 0.2, momentum: 0.97, projection_layers: 2, {HEAD}"),
    "nnclr": (2, f"name: nnclr, temperature: 0.2, queue_length: 4096, {PREDICTOR}"),
    "byol": (2, f"name: byol, momentum: 0.97, {PREDICTOR}"),
    "simsiam": (2, f"name: simsiam, {WIDE}, predictor_hidden: 128"),
    "swav": (
        2,
        f"name: swav, prototypes: 512, sinkhorn_temperature: 0.03, queue: 512, freeze_prototypes: 0.05, {HEAD}",
    ),
    "barlow_twins": (2, f"name: barlow_twins, scale: 0.1, {WIDE}"),
    "vicreg": (2, f"name: vicreg, {WIDE}"),
    "lejepa": (2, f"name: lejepa, slices: 256, {HEAD}"),
    "dino": (2, f"name: dino, head_batch_norm: true, {PROTOTYPES}"),
    "instance_identity": (2, f"name: instance_identity, instances: 50000, {HEAD}"),
    "denoising_autoencoder": (1, "name: denoising_autoencoder, decoder_width: 32, decoder_stages: 3"),
}
VITS = {
    "simclr": (2, f"name: simclr, temperature: 0.5, {HEAD}"),
    "moco_v3": (2, f"name: moco_v3, temperature: 0.2, momentum: 0.97, freeze_patch_embedding: true, {HEAD}"),
    "lejepa": (2, f"name: lejepa, slices: 256, {HEAD}"),
    "dino": (2, f"name: dino, {PROTOTYPES}"),
    "ibot": (2, f"name: ibot, {PROTOTYPES}"),
    "dinov2": (2, f"name: dinov2, patch_prototypes: 512, {PROTOTYPES}"),
    "mae": (1, "name: mae, decoder_width: 64, decoder_depth: 1, decoder_heads: 2"),
    "simmim": (1, "name: simmim, mask_size: 8"),
    "ijepa": (1, "name: ijepa, predictor_width: 32, predictor_depth: 2, predictor_heads: 2, momentum: 0.97"),
}
GROUPS = {
    "ResNet": (RESNETS, SMALL_RESNET, "learning_rate: 2.0e-3, weight_decay: 1.0e-4"),
    "ViT": (VITS, VIT, "learning_rate: 1.0e-3, weight_decay: 0.05"),
}
JITTER = "brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, blur: 0.0"
CROPS = "jitter: 0.0, gray: 0.0, blur: 0.0"  # one view, which is only cropped and flipped


def study(given: Namespace) -> Study:
    """An arm for each method that learns from images without more, on each kind of network it takes."""
    steps, arms = given.steps or STEPS, []
    for group, (methods, network, optimizer) in GROUPS.items():
        for name, (count, method) in methods.items():
            changes = [
                f"data={{source: {quoted(given.cifar10)}}}",
                f"views={{name: simclr, size: 32, count: {count}, crop_scale: [0.2, 1.0], {JITTER if count > 1 else CROPS}}}",
                f"model={network}",
                f"method={{{method}}}",
                f"optimizer={{name: adamw, {optimizer}}}",
                f"training={{steps: {steps}, batch_size: {VIEWS // count}, gradient_clip: 1.0, log_every: 50, "
                f"checkpoint_every: {steps}}}",
            ]
            arms.append(Arm(f"{name}, {group}", changes, group=group))
    return Study(
        "methods",
        f"CIFAR-10, {steps} steps of {VIEWS} views, AdamW, a narrow ResNet-18 or a small ViT with patches of 4 px; linear probe "
        "and kNN on frozen features after the last step, on 10 000 training images and all test images. No setting was tuned on "
        "these scores.",
        arms,
        cifar10(given.cifar10),
        ("cifar10", "linear"),
        {given.cifar10: "cifar10"},
    )


if __name__ == "__main__":
    command(study, "methods", __doc__)
