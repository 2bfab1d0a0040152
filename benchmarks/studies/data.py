"""The same SimCLR at the same budget on other images: every stream alone, mixtures, CIFAR-10, and half and half.

python -m wildfern.benchmarks.studies.data --cifar10 parquet:PATH
"""

from argparse import Namespace

from wildfern.benchmarks.studies.study import SMALL_RESNET, Arm, Study, cifar10, command, quoted

STEPS, BATCH = 200, 64
FRACTALS = "size: 32, points: 1000, classes: 100000"
STREAMS = {
    "ifs": f"source: ifs, {FRACTALS}, background: false",
    "ifs with backgrounds": f"source: ifs, {FRACTALS}, background: true",
    "ifs_pair": f"source: ifs_pair, {FRACTALS}, background: false",
    "fractaldb": "source: fractaldb, size: 32",
    "contours": "source: contours, size: 32",
    "lsystem": "source: lsystem, size: 32",
    "dead_leaves": "source: dead_leaves, size: 32",
    "spectrum": "source: spectrum, size: 32",
    "texture": "source: texture, size: 32",
    "flame": "source: flame, size: 32",
    "neural_fractal": "source: neural_fractal, size: 32",
    "mask_mix of texture": "source: mask_mix, of: {source: texture, size: 32}",
}


def study(given: Namespace) -> Study:
    """One arm for each kind of training images; only `data` differs."""
    steps, real = given.steps or STEPS, f"source: {quoted(given.cifar10)}"
    data = {name: f"{{{entry}}}" for name, entry in STREAMS.items()}
    mixed = ("ifs", "dead_leaves", "texture")
    data["ifs, dead_leaves, texture"] = "[" + ", ".join(f"{{{STREAMS[name]}}}" for name in mixed) + "]"
    data["CIFAR-10"] = f"{{{real}}}"
    data["half CIFAR-10, half dead_leaves"] = f"[{{{real}}}, {{{STREAMS['dead_leaves']}}}]"
    common = [
        "views={name: simclr, size: 32, crop_scale: [0.2, 1.0], brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, "
        "flip: 0.0, blur: 0.0}",
        f"model={SMALL_RESNET}",
        "optimizer={name: adamw, learning_rate: 2.0e-3, weight_decay: 1.0e-4}",
        f"training={{steps: {steps}, batch_size: {BATCH}, precision: auto, log_every: 50, checkpoint_every: {steps}}}",
    ]
    return Study(
        "data",
        f"SimCLR, {steps} steps of {BATCH} images, a narrow ResNet-18 at 32 px; linear probe and kNN on frozen features after "
        "the last step, of CIFAR-10 on 10 000 training images and all test images. Only the images of pretraining differ.",
        [Arm(name, [f"data={entry}", *common]) for name, entry in data.items()],
        cifar10(given.cifar10) | {"digits": "digits"},
        ("cifar10", "linear"),
        {given.cifar10: "cifar10"},
    )


if __name__ == "__main__":
    command(study, "data", __doc__)
