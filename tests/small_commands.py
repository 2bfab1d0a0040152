"""How the commands of README and docs are run: with less training, data and time, everything else as written.

A command of `wildfern` that is not in `SMALL` runs as it stands. `FORMS` says what names in capitals stand for.
"""

import re
import runpy
import shutil
import time
from collections.abc import Callable
from importlib import import_module, metadata
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tifffile
import timm
import torch
from PIL import Image
from small_runs import TINY

from wildfern.launch import pretrain
from wildfern.launch.curating import scan
from wildfern.ssl.data import open_source
from wildfern.ssl.data.clusters import clusters_as_bytes

NARROW = ["model.backbone=resnet18", "model.arguments.layers=[1,1,1,1]", "model.arguments.channels=[8,8,8,8]"]
HEADS = ["method.projection_hidden=16", "method.projection_size=8"]
FEW = ["training.steps=2", "training.batch_size=8", "views.size=32", "evaluation.on=[]"]
SEGMENTING = [
    "training.steps=2",
    "training.batch_size=8",
    "data.0.size=48",
    "views.size=32",
    "views.crop_pixels=[32, 32]",
]
SEGMENTING += ["model.arguments.widths=[4, 6]", "method.discriminator_width=4", "method.contrast_width=4"]
VIT = ["model.backbone=test_vit", "views.local_size=16", "method.prototypes=32"]

# Commands that a test of its own runs, by the name of the test.
ELSEWHERE = {"mkdocs build": "test_the_site_builds_and_needs_no_network"}

FORMS = {
    "init": {"FOLDER": "images"},
    "pretrain": {"RECIPE": "quickstart", "FOLDER/recipe.yaml": "runs/mine/recipe.yaml"},
    "recipes": {"NAME": "quickstart", "FILE": "mine.py"},
    "render": {"NAME": "ifs", "key=value": "seed=1"},
}
EVERYWHERE = {"RUN": "runs/mine"}


def small(words: list[str]) -> list[str]:
    """The arguments of `wildfern`, made small."""
    forms = EVERYWHERE | FORMS.get(words[0], {})
    words = [forms.get(word, word) for word in words]
    return SMALL.get(words[0], list)(words)


def small_series(words: list[str]) -> list[str]:
    """`--seeds` and `sweep`: two runs of one step."""
    words = [f"runs/{time.monotonic_ns()}" if word.startswith("runs/") else word for word in words]
    if "--seeds" in words:
        words[words.index("--seeds") + 1] = "0,1"
    return [*words, *TINY, "training.steps=1", *(["--random", "1"] if words[0] == "sweep" else [])]


def small_pretrain(words: list[str]) -> list[str]:
    if "--seeds" in words:
        return small_series(words)
    if "--resume" in words:  # resumes the run of the workplace, which has another recipe
        return ["pretrain", "runs/mine/recipe.yaml", "training.steps=3", "--run", "runs/mine", "--resume"]
    if "--run" in words:
        words[words.index("--run") + 1] = f"runs/{time.monotonic_ns()}"
    return [*words, *small_training(words[1], words)]


def small_training(recipe: str, words: list[str]) -> list[str]:
    """Changes that make the training of a recipe small."""
    if recipe.startswith("freecos"):
        return SEGMENTING
    if recipe.endswith(".yaml"):
        return ["training.steps=2"]  # of the workplace
    changes = [*FEW, *(VIT if "dino" in recipe else NARROW)]
    if "dino" not in recipe and "autoencoder" not in recipe and not any(word.startswith("method.") for word in words):
        changes += HEADS
    if recipe.startswith(("simclr_cifar10", "denoising_autoencoder_cifar10")):
        changes += ["data=folder:images"]
    if "mix" not in recipe and "cifar10" not in recipe and not any(word.startswith("data") for word in words):
        changes += ["data.size=32", "data.points=200"]
    return changes


def small_evaluate(words: list[str]) -> list[str]:
    changed = {"runs/quickstart": "runs/mine", "vit_small_patch14_dinov2": "test_vit", "224": "32"}
    return [changed.get(word, word).replace("steps=200", "steps=2 seeds=1 batch_size=2") for word in words]


def small_bench(words: list[str]) -> list[str]:
    if "pipeline" in words:
        words = [*words, "data.size=32", "data.points=200", "views.size=32", "training.batch_size=8", *NARROW, *HEADS]
        words = [word for word in words if word != "training.batch_size=256"]
    if "--seconds" in words:
        words = words[: words.index("--seconds")]
    return [*words, "--seconds", "0.1"]


def small_cluster(words: list[str]) -> list[str]:
    words = [{"runs/autoencoder": "runs/mine", "2048": "8"}.get(word, word) for word in words]
    words[words.index("--out") + 1] = f"{time.monotonic_ns()}.safetensors"
    return words if "--on" in words else [*words, "--on", "folder:images"]


def small_plan(words: list[str]) -> list[str]:
    images = max(8, int(words[words.index("--gpus") + 1]) if "--gpus" in words else 1)
    return [*words, f"training.batch_size={images}", "views.size=32", *(VIT if "dino" in words[1] else NARROW)]


def small_curate(words: list[str]) -> list[str]:
    words = [word.replace("min_side=64", "min_side=16") for word in words]
    return [*words, "--set", "people.detector=null", "--processes", "1"] if words[1] == "scan" else words


def small_segment(words: list[str]) -> list[str]:
    words[words.index("--out") + 1] = f"{time.monotonic_ns()}"
    return words


SMALL: dict[str, Callable[[list[str]], list[str]]] = {
    "bench": small_bench,
    "cluster": small_cluster,
    "compare": lambda words: ["runs/other" if word == "runs/quickstart" else word for word in words],
    "curate": small_curate,
    "evaluate": small_evaluate,
    "init": lambda words: [*words, "--out", f"{time.monotonic_ns()}.yaml"],
    "neighbors": lambda words: words if "--on" in words else [*words, "--on", "folder:images"],
    "plan": small_plan,
    "pretrain": small_pretrain,
    "quickstart": lambda words: [*words, *TINY, "training.steps=2"],
    "segment": small_segment,
    "sweep": small_series,
    "render": lambda words: [*words, "size=32", "--grid", "2x2"],
}

COUNTS = ("--num_accelerators", "--num_gpus", "--nproc-per-node")  # options of launchers: number of processes

# Constants of what is measured, with values that take no time.
TINY_NETWORK = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "zero_init_last": False}
ONE_OF_EACH = {
    "PRECISIONS": ("fp32",),
    "LAYOUTS": {"channels first": torch.contiguous_format},
    "OPTIMIZERS": {"sgd": torch.optim.SGD},
}
CONSTANTS: dict[str, dict[str, object]] = {
    "augmentation": {"CASES": {"cpu": ((32, 2), (64, 2))}, "WORKERS": 1, "MULTICROP_BATCH": {"cpu": 1}},
    "curation": {"IMAGES": 2, "SIZES": ((64, 48),), "CHUNK": 16, "WIDTH": 8, "MILLION": 100},
    "generators": {"SIZES": ((32, 1000),), "SCENE": (32, 1000), "BATCH": 1, "THREADS_BATCH": 2, "CLASSES": 2},
    "losses": {"IMAGES": 8, "CACR_IMAGES": 8, "DINO_IMAGES": 4, "PROTOTYPES": 16},
    "lightly_loop": {"WORKERS": 0},
    "loss_scaling": {"SIZES": (8, 16)},
    "pipeline": {"SIDE": {"cpu": 64}, "LEAD": 0},
    "result": {"ROUNDS": 1},
    "threads": {"STEPS": 2, "BATCH": 4, "SIZE": 32, "NETWORK": TINY_NETWORK} | ONE_OF_EACH,
    "views_parity": {"BATCH": 8, "NARROW": TINY_NETWORK},
}


def make_benchmarks_small(patch: pytest.MonkeyPatch) -> None:
    """Let measurements compute as little as they can, and torch.compile trace, but not call a compiler of C++."""
    patch.setattr("wildfern.ssl.training.trial_steps.MOST", 2)
    for module, constants in CONSTANTS.items():
        for name, value in constants.items():
            patch.setattr(import_module(f"wildfern.benchmarks.{module}"), name, value)
    patch.setattr(numba.config, "DISABLE_JIT", True)  # the baseline would take ten seconds to compile
    baseline = runpy.run_path(import_module("wildfern.benchmarks.scalar_ifs").__file__)
    patch.setattr(numba.config, "DISABLE_JIT", False)
    for name in ("scalar_sample", "scalar_scene"):
        patch.setattr(import_module("wildfern.benchmarks.generators"), name, baseline[name])
    compiler = torch.compile

    def traced(function, **given):
        return compiler(function, **given | {"backend": "eager"})

    patch.setattr(torch, "compile", traced)


def small_launch(words: list[str]) -> list[str]:
    """The arguments of a launcher, made small: at most two processes."""
    words = ["2" if before in COUNTS and int(word) > 2 else word for before, word in pairwise(["", *words])]
    if "--recipe" not in words:
        return words
    recipe = words.index("--recipe") + 1
    run = next(words.index(option) for option in ("--run", "--run-folder") if option in words) + 1
    if "--resume" in words:  # resumes a run of the workplace, which has another recipe
        words[recipe], words[run] = "runs/launched/recipe.yaml", "runs/launched"
        return [*words, "training.steps=3"]
    words[run] = f"runs/{time.monotonic_ns()}"
    return [*words, *small_training(words[recipe], words), "training.threads=1", "training.device=cpu"]


def check_pip(arguments: list[str]) -> None:
    """`pip install` of wildfern itself: its extras exist. (.ci/run installs it.)"""
    extras = metadata.metadata("wildfern").get_all("Provides-Extra")
    assert arguments[0] == "install"
    for package in arguments[1:]:
        if package != "-e":
            named = re.fullmatch(r"(?:\.|wildfern)(?:\[([\w,]+)\])?", package)
            assert named, f"{package} is not of this repository"
            assert set(filter(None, (named[1] or "").split(","))) <= set(extras)


def check_pytest(arguments: list[str], root: Path) -> None:
    """The tests that are named exist."""
    named = [word for word in arguments if word.startswith("tests")]
    assert named or not arguments
    assert all((root / name).exists() for name in named)


def make_workplace(folder: Path) -> None:
    """What the commands need: a finished run, images, and what docs/data.md is about: TIFFs of 12 bits, an export with splits,
    parquet files and a checkpoint.
    """
    rng = np.random.default_rng(0)

    def image(path: str, shape: tuple[int, ...] = (40, 48, 3)) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / path)

    pretrain("quickstart", [*TINY, "training.steps=2"], run=folder / "runs" / "mine")
    for name in ("microscope", "export", "flowers", "a", "b", "other", "launched"):
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / name)
    pretrain(
        "freecos_quick", [*SEGMENTING, "training.threads=1", "training.device=cpu"], run=folder / "runs" / "vessels"
    )
    shutil.copy(folder / "runs" / "mine" / "recipe.yaml", folder)  # as of `wildfern init`
    for number in range(16):
        image(f"images/{number}.png")
        image(f"labeled/{'ab'[number % 2]}/{number}.png")
        image(f"drawn/images/{number}.png")
        (folder / "drawn" / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 2, (40, 48), dtype=np.uint8) * 255).save(folder / f"drawn/masks/{number}.png")
        place = folder / "microscope" / "ab"[number % 2] / f"{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 4096, (40, 40), dtype=np.uint16)).save(place)
        place = folder / "satellite" / f"{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(place, rng.integers(0, 9000, (40, 40, 5), dtype=np.uint16), planarconfig="contig")
        for split in ("train", "valid", "test"):
            image(f"export/{split}/{'ab'[number % 2]}/{number}.jpg")
    rights = [f"{number}.png,CC-BY-4.0,someone" for number in range(16)]
    (folder / "rights.csv").write_text("\n".join(["path,license,author", *rights]) + "\n")
    (folder / "marks.csv").write_text("sha256,path,mark\n")
    for name, source in (("curated", "images"), ("curated2", "labeled")):
        scan([str(folder / source)], folder / name, processes=1)
    clusters = clusters_as_bytes(np.arange(16) // 2, open_source(f"folder:{folder / 'images'}"))
    (folder / "clusters.safetensors").write_bytes(clusters)
    encoded = [file.read_bytes() for file in sorted((folder / "export/train").rglob("*.jpg"))]
    flowers = {"img": [{"bytes": b, "path": None} for b in encoded], "kind": [7, 10**9] * 8}
    for number in range(16):
        image(f"small/{number}.png", (32, 32, 3))
    encoded = [file.read_bytes() for file in sorted((folder / "small").iterdir())]
    cifar10 = {"image": [{"bytes": b, "path": None} for b in encoded], "label": [0, 1] * 8}
    for name, columns in (("flowers", flowers), ("cifar10", cifar10)):
        (folder / name).mkdir()
        for split in ("train", "test"):
            pyarrow.parquet.write_table(pyarrow.table(columns), folder / name / f"{split}.parquet")
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, folder / "checkpoint.pth")
