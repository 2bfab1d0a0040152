"""CACR and its uniform form against SimCLR, pretrained on balanced and imbalanced CIFAR-10, at equal views and steps.

    python -m wildfern.benchmarks.studies.imbalance --cifar10 parquet:PATH

Every step has the same number of views: 160 images in two views (SimCLR, CACR with K = 1), or 64 images in five (K = 4
positives). The small network is for a computer without a GPU; the published encoder is `model.backbone=small_alexnet`.
"""

from argparse import Namespace

from wildfern.benchmarks.studies.study import SMALL_RESNET, Arm, Study, cifar10, command, quoted

STEPS, VIEWS = 300, 320
DATA = {
    "balanced": "",
    "linear imbalance": ", imbalance: {kind: linear}",
    "exponential imbalance": ", imbalance: {kind: exp}",
}
METHODS = {
    "SimCLR": (2, "{name: simclr, temperature: 0.5, projection_hidden: 512, projection_size: 128}"),
    "CACR K = 1": (2, "{name: cacr, tau_neg: 0.9, projection: linear, projection_size: 128}"),
    "uniform K = 4": (
        5,
        "{name: cacr, weighted_positive: false, weighted_negative: false, projection: linear, projection_size: 128}",
    ),
    "CACR K = 4": (5, "{name: cacr, tau_neg: 0.9, projection: linear, projection_size: 128}"),
}


def study(given: Namespace) -> Study:
    """Four methods on three versions of the training images; the linear probe has all of them."""
    steps = given.steps or STEPS
    arms = []
    for kind, imbalance in DATA.items():
        for name, (count, method) in METHODS.items():
            changes = [
                f"data={{source: {quoted(given.cifar10)}{imbalance}}}",
                f"views={{name: simclr, size: 32, count: {count}, crop_scale: [0.2, 1.0], jitter: 1.0, brightness: 0.4, "
                "contrast: 0.4, saturation: 0.4, hue: 0.4, gray: 0.2, blur: 0.0}",
                f"model={SMALL_RESNET}",
                f"method={method}",
                "optimizer={name: adamw, learning_rate: 2.0e-3, weight_decay: 1.0e-4}",
                f"training={{steps: {steps}, batch_size: {VIEWS // count}, log_every: 50, checkpoint_every: {steps}}}",
            ]
            arms.append(Arm(f"{name}, {kind}", changes, group=kind))
    return Study(
        "imbalance",
        f"CIFAR-10, {steps} steps of {VIEWS} views, a narrow ResNet-18; augmentation of the published settings for all; linear "
        "probe and kNN on frozen features after the last step, on 10 000 balanced training images and all test images.",
        arms,
        cifar10(given.cifar10),
        ("cifar10", "linear"),
        {given.cifar10: "cifar10"},
    )


if __name__ == "__main__":
    command(study, "imbalance", __doc__)
