"""Does curation pay? The same SimCLR at the same budget on a set with known faults, as it is and after each step of curation.

    python -m wildfern.benchmarks.studies.curation --cifar10 parquet:PATH

The set is made of CIFAR-10's training images: 5 000 of ten classes, the largest a hundred times the smallest; a hundred
re-encoded copies of each of 40 of them; and 1 000 images of one color. Clusters are of the features that the first run on the
whole set learned.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wildfern.benchmarks.studies.study import SMALL_RESNET, Arm, Study, cifar10, command, quoted, train
from wildfern.benchmarks.studies.study import run as run_study
from wildfern.ssl.data import open_source

STEPS, BATCH = 300, 64
LARGEST, SMALLEST = 2000, 20  # images of a class
COPIED, COPIES, FLAT = 40, 100, 1000
BALANCED = 3000  # images of a balanced draw
KEEP_COPIES = ("exact_duplicate.action=keep", "near_duplicate.action=keep")
ALWAYS = ("tiny.min_side=16", "screenshot.action=keep", "dark.action=keep", "light.action=keep", "blurred.action=keep")
BALANCE = ("similar.action=keep", "selection.clusters=[500,50]", f"selection.balance={BALANCED}")
RAW = "as it is"
CURATED = {
    "flat images removed": KEEP_COPIES,
    "flat images and copies removed": (),
    "flat images removed, balanced": (*KEEP_COPIES, *BALANCE),
    "flat images and copies removed, balanced": BALANCE,
}
CLEAN = "balanced by labels, no faults"


def study(given: Namespace) -> Study:
    """An arm for the whole set, for each curation of it, and for as many images that an expert would have chosen."""
    steps, made = given.steps or STEPS, given.runs / "images"
    common = [
        "views={name: simclr, size: 32, crop_scale: [0.2, 1.0], brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, "
        "blur: 0.0}",
        f"model={SMALL_RESNET}",
        "optimizer={name: adamw, learning_rate: 2.0e-3, weight_decay: 1.0e-4}",
        f"training={{steps: {steps}, batch_size: {BATCH}, precision: auto, log_every: 50, checkpoint_every: {steps}}}",
    ]
    sources = {RAW: f"folder:{made / 'messy'}"}
    sources |= {name: f"curated:{made / _folder(name)}" for name in CURATED}
    sources[CLEAN] = f"folder:{made / 'clean'}"
    return Study(
        "curation",
        f"SimCLR, {steps} steps of {BATCH} images, a narrow ResNet-18 at 32 px; linear probe and kNN on frozen features after "
        "the last step, of CIFAR-10 on 10 000 training images and all test images. Only the images of pretraining differ.",
        [Arm(name, [f"data={quoted(source)}", *common]) for name, source in sources.items()],
        cifar10(given.cifar10),
        ("cifar10", "linear"),
        {given.cifar10: "cifar10", f"{made}/": ""},
    )


def run(study: Study, seeds: Sequence[int], folder: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Make the images, train on all of them once for features, curate, and then run the study. Adds the numbers of images."""
    from wildfern.launch.curating import scan

    made = folder / "images"
    cifar = next(iter(study.sources))
    write_images(open_source(cifar), made)
    arms = {arm.name: arm for arm in study.arms}
    raw = arms.get(RAW)
    backbone = str(train(study, raw, seeds[0], folder, changes)) if raw is not None else None
    counts = {}
    for name, settings in CURATED.items():
        if name not in arms:
            continue
        if any(setting in BALANCE for setting in settings) and backbone is not None:
            settings = (f"features.backbone={backbone}", *settings)
        found = scan([str(made / "messy")], made / _folder(name), "default", changes=[*ALWAYS, *settings])
        counts[name] = found.counts["keep"]
    for name, place in ((RAW, "messy"), (CLEAN, "clean")):
        counts[name] = sum(1 for path in (made / place).iterdir() if path.suffix in (".png", ".jpg"))
    return run_study(study, seeds, folder, changes) | {"images": counts}


def write_images(cifar: Any, made: Path) -> None:
    """The folders messy and clean, a function of CIFAR-10 alone; nothing is written twice."""
    done = made / "done"
    if done.exists():
        return
    rng = np.random.Generator(np.random.Philox(2024))
    by_class = [rng.permutation(np.flatnonzero(cifar.labels == label)) for label in range(10)]
    sizes = np.round(np.geomspace(LARGEST, SMALLEST, 10)).astype(int)
    long_tail = np.concatenate([items[:size] for items, size in zip(by_class, sizes, strict=True)])
    balanced = np.concatenate([items[: len(long_tail) // 10] for items in by_class])
    for name, items in (("messy", long_tail), ("clean", balanced)):
        (made / name).mkdir(parents=True, exist_ok=True)
        for item in items.tolist():
            Image.fromarray(np.asarray(cifar.read([item]).pixels[0])).save(made / name / f"image_{item:05d}.png")
    for item in rng.choice(long_tail, COPIED, replace=False).tolist():
        image = Image.fromarray(np.asarray(cifar.read([item]).pixels[0]))
        for copy in range(COPIES):
            image.save(made / "messy" / f"copy_{item:05d}_{copy:03d}.jpg", quality=60 + copy % 40)
    for number, color in enumerate(rng.integers(0, 256, (FLAT, 3), np.uint8)):
        Image.new("RGB", (32, 32), tuple(color.tolist())).save(made / "messy" / f"flat_{number:04d}.png")
    done.touch()


def _folder(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


if __name__ == "__main__":
    command(study, "curation", __doc__, run)
