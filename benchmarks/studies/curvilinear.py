"""What each part of FreeCOS adds: segmentation of branches in images of a domain of which training has no mask.

    python -m wildfern.benchmarks.studies.curvilinear --json benchmarks/results/study_curvilinear.json

A small U-Net learns from rendered branches, with the shapes of `lsystem`'s preset `retina` in random colors, dark and bright, and
is tested on others, which follow other rules and lie on photographs (`curvilinear_target`). Each row adds one part to the row
before:

- RGB: rendered images as they are.
- intensity order: which neighbors of a pixel are darker, in place of its color.
- Fourier adaptation: rendered images get the low frequencies of 200 images of the domain without masks.
- unlabeled images: half of each batch are those images, from which nothing is learned yet but the statistics of normalization.
- adversarial alignment: a discriminator compares predictions of both halves.
- FreeCOS: mask contrast.

Beside them: random textures on random textures, in RGB, without images of the domain; and the filters of Frangi and Sato, on
gray images of mean 0 and deviation 1, for dark or for bright ridges, whichever have the larger mean square in the image.

Scores are means over 40 test images, in %. Those of networks are at the threshold 0.5, and Dice also at the threshold that is
best on 64 rendered images not used in training; all scores of filters are at a threshold that is chosen in the same way. Thin:
recall of branches of up to 2 px. Masks of test images are used for these scores alone.

Runs are kept in the folder --runs, with the images and scores: what is finished is not repeated. On images of your own, or a
published set such as DRIVE, unpacked in the folder `drive`, a run is scored by

    wildfern evaluate RUN --on masks:drive --protocol segmentation
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildfern.benchmarks.arguments import at_least_one
from wildfern.benchmarks.studies.curvilinear_target import write_target
from wildfern.benchmarks.studies.study import BACKBONE, MOST_BYTES, Arm, Record, Study, quoted, train
from wildfern.bounded_json import read_json
from wildfern.files import write_text
from wildfern.launch.command import run_command
from wildfern.launch.components import read_recipe
from wildfern.launch.errors import RunError
from wildfern.recipes import Recipe
from wildfern.ssl.data import open_source
from wildfern.ssl.tracking import environment

STEPS, BATCH, SIZE = 250, 16, 96
RATE = 0.1  # higher than in the recipe, for short runs: chosen from 0.03 and 0.1 by Dice on rendered images of another seed
RENDERED = "source: lsystem, size: 192, preset: retina, width: [0.008, 0.05]"
COLORED = f"{{{RENDERED}, color: random}}"
ALONE = ("method.adversarial=0.0", "method.contrast=0.0")
RGB = ("views.local_intensity_order=false", "model.arguments.in_chans=3")
SIGMAS = (1.0, 2.0, 3.0, 4.0)  # px of the filters: up to half of the widest branches of the rendered images
VALIDATION = 64  # rendered images on which the threshold of a filter is chosen
FILTERS = ("Frangi", "Sato")
SCORES = {
    "dice": "Dice",
    "dice_validation_threshold": "Dice, chosen threshold",
    "cl_dice": "clDice",
    "tolerant_f1": "F1, 2 px",
    "roc_auc": "ROC AUC",
    "recall_0_to_2_px": "thin",
}
Scores = dict[str, float]


def study(steps: int, folder: Path) -> Study:
    """The rows that are trained; the images are those in `folder`."""
    unlabeled = f"folder:{folder / 'target' / 'unlabeled'}"
    real = f"{{source: {quoted(unlabeled)}}}"
    textured = f"{{{RENDERED}, color: texture, background: texture}}"
    adapted = f"views.fourier_adaptation.data={quoted(unlabeled)}"
    plain = "views.fourier_adaptation=null"
    rows = {
        "RGB": [f"data=[{COLORED}]", plain, *RGB, *ALONE],
        "+ intensity order": [f"data=[{COLORED}]", plain, *ALONE],
        "+ Fourier adaptation": [f"data=[{COLORED}]", adapted, *ALONE],
        "+ unlabeled images": [f"data=[{COLORED}, {real}]", adapted, *ALONE],
        "+ adversarial alignment": [f"data=[{COLORED}, {real}]", adapted, "method.contrast=0.0"],
        "+ mask contrast (FreeCOS)": [f"data=[{COLORED}, {real}]", adapted],
        "random textures": [f"data=[{textured}]", plain, *RGB, *ALONE],
    }
    common = [
        f"training={{steps: {steps}, batch_size: {BATCH}, precision: fp32, threads: 1, checkpoint_every: {steps}}}",
        f"optimizer.learning_rate={RATE}",
        f"views.size={SIZE}",
        f"views.crop_pixels=[{SIZE}, {SIZE}]",
    ]
    return Study(
        "curvilinear",
        f"U-Net of 16 to 128 channels, {steps} steps of {BATCH} squares of {SIZE} px, SGD; 40 test images of 256 px: "
        "branches rendered by other rules, on photographs. Means and sample deviations over seeds of the mean over images, in %. "
        "No setting was chosen by these scores.",
        [Arm(name, [*changes, *common], "freecos_quick") for name, changes in rows.items()],
        {"target": f"masks:{folder / 'target' / 'labeled'}"},
        ("target", "segmentation"),
        {f"{folder / 'target'}/": ""},
    )


def run(
    study: Study, filters: Sequence[str], seeds: Sequence[int], folder: Path, changes: Sequence[str]
) -> dict[str, Any]:
    """Train and score every row with every seed in `folder/seed=N`; what is finished is not repeated.

    Raises RunError for runs of other settings and RecipeErrors for settings that are none, before anything is trained.
    """
    write_target(folder / "target")
    for arm in study.arms:
        for seed in seeds:
            Record.of(arm, seed, folder, changes).finished()
    images = _digest(sorted((folder / "target" / "labeled").rglob("*.png")))
    on, found = str(study.on["target"]), {}
    for seed in seeds:  # all rows with one seed first: an interrupted study still compares
        of_seed = folder / f"seed={seed}"
        for name in filters:
            recipe = read_recipe("freecos_quick", [f"data=[{COLORED}]", f"seed={seed}"])
            of = {"images": images, "data": COLORED}
            found[name, seed] = _kept(of_seed / f"{name}.scores.json", of, partial(filter_scores, name, recipe, on))
        for arm in study.arms:
            path = train(study, arm, seed, folder, changes)
            of = {"images": images, "weights": _digest([path / BACKBONE, path / "decoder.safetensors"])}
            found[arm.name, seed] = _kept(
                path.with_name(f"{path.name}.scores.json"), of, partial(network_scores, path, on)
            )
    return {
        "study": study.name,
        "protocol": study.protocol,
        "seeds": list(seeds),
        "changes": [study.named(change) for change in changes],
        "arms": {arm.name: [arm.recipe, *map(study.named, arm.changes)] for arm in study.arms},
        "rows": [
            summary(name, [found[name, seed] for seed in seeds])
            for name in (*filters, *(arm.name for arm in study.arms))
        ],
        "environment": environment(),
    }


def network_scores(path: Path, on: Any) -> Scores:
    """The scores of a run."""
    from wildfern.launch import evaluate

    rows = evaluate(path, on=on, protocols="segmentation", threads=1).rows
    return {row["metric"]: row["value"] for row in rows if row["backbone"] == "pretrained" and row["metric"] in SCORES}


def filter_scores(name: str, recipe: Recipe, on: str) -> Scores:
    """The scores of a filter at the threshold that is best on rendered images of a recipe, which its training does not read."""
    from wildfern.launch.builders import seeded_arguments
    from wildfern.ssl.evaluation.masked_images import masked_images
    from wildfern.ssl.evaluation.protocols.segmentation import Segmented, segmentation_scores

    rendered = open_source(recipe.data[0].source, "test", **seeded_arguments(recipe.data[0], recipe.seed))
    shown = rendered.read(np.arange(VALIDATION))
    threshold = filter_threshold([ridges(np.asarray(pixels), name) for pixels in shown.pixels], shown.masks)
    test = masked_images(open_source(on, "test"), on)
    found = segmentation_scores(
        Segmented((response / (response + threshold)).astype(np.float32), image)
        for image in test
        for response in [ridges(image.pixels, name)]
    )
    scores = {score.metric: score.value for score in found if score.metric in SCORES}
    # The threshold is 0.5 of these shares, and none is fixed without images.
    return {"dice_validation_threshold": scores.pop("dice"), **scores}


def ridges(pixels: NDArray[np.uint8], name: str) -> NDArray[np.float64]:
    """The response of a filter to the dark or to the bright ridges of an image uint8[H, W, 3], float64[H, W] ≥ 0."""
    from skimage import filters

    gray = pixels @ np.array([0.299, 0.587, 0.114])
    gray = (gray - gray.mean()) / max(gray.std(), 1e-9)
    both = [getattr(filters, name.lower())(gray, sigmas=SIGMAS, black_ridges=dark) for dark in (True, False)]
    return max(both, key=lambda response: float(np.square(response).mean()))


def filter_threshold(responses: Sequence[NDArray[np.float64]], masks: Any) -> float:
    """The threshold of responses with the best mean Dice, of 200 quantiles of all of them."""
    from wildfern.ssl.evaluation.metrics.segmentation_thresholds import best_threshold

    candidates = np.quantile(np.concatenate([response.ravel() for response in responses]), np.linspace(0.5, 0.999, 200))
    candidates = np.unique(candidates[candidates > 0])
    pairs = zip(responses, masks, strict=True)
    share, _ = best_threshold(
        ((response / (1 + response), mask > 0, None) for response, mask in pairs),
        thresholds=candidates / (1 + candidates),
    )
    return share / (1 - share)


def summary(name: str, scores: Sequence[Scores]) -> dict[str, Any]:
    """Mean and sample deviation over seeds of each score of a row, and its values; in %, None for what was not measured."""
    found: dict[str, Any] = {}
    for metric in SCORES:
        values = [100 * one[metric] for one in scores if metric in one]
        found[metric] = {
            "mean": round(fmean(values), 2) if values else None,
            "std": round(stdev(values), 2) if len(values) > 1 else None,
            "values": [round(value, 2) for value in values],
        }
    return {"row": name, "scores": found}


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lines of Markdown: the rows of `summary`, a score in each column."""
    lines = ["| | " + " | ".join(SCORES.values()) + " |", "|---|" + "---|" * len(SCORES)]
    for row in rows:
        lines.append(f"| {row['row']} | " + " | ".join(_cell(row["scores"][metric]) for metric in SCORES) + " |")
    return "\n".join(lines)


def _cell(score: Mapping[str, Any]) -> str:
    if score["mean"] is None:
        return "–"
    return f"{score['mean']:.1f}" + ("" if score["std"] is None else f" ± {score['std']:.1f}")


def _kept(file: Path, of: Mapping[str, Any], compute: Callable[[], Scores]) -> Scores:
    """The scores in `file` if they are of the same weights and images; else they are computed and written."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # missing or damaged
        found = read_json(file, MOST_BYTES)
        if found["of"] == of:
            return dict(found["scores"])
    scores = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"of": of, "scores": scores}, indent=1) + "\n")
    return scores


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def seeds(text: str) -> list[int]:
    """Numbers with commas. Raises ValueError for others."""
    return list(dict.fromkeys(int(seed) for seed in text.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=at_least_one, default=STEPS, help=f"steps of each run (default: {STEPS})")
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2], help="for example 0,1,2")
    parser.add_argument("--rows", help="rows whose names contain this, or one of several texts with commas")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/studies/curvilinear"), help="folder of the images, runs and scores"
    )
    parser.add_argument("--json", type=Path, default=Path("study_curvilinear.json"), help="file of the results")
    parser.add_argument("changes", nargs="*", help="further changes to the recipes: key.sub=value")
    given = parser.parse_args()

    def work() -> None:
        from wildfern.launch.output_paths import output_file, write_json_file

        file = output_file(given.json)
        whole = study(given.steps, given.runs)
        chosen, filters = selected(whole, given.rows)
        result = run(chosen, filters, given.seeds, given.runs, given.changes)
        write_json_file(file, result)
        print(f"\n{whole.protocol}\n\n{text_table(result['rows'])}\n\nwritten: {given.json}")

    run_command(work)


def selected(whole: Study, rows: str | None) -> tuple[Study, list[str]]:
    """The arms and filters whose names contain one of the texts. Raises RunError if there are none."""
    parts = [""] if rows is None else rows.split(",")
    arms = [arm for arm in whole.arms if any(part in arm.name for part in parts)]
    filters = [name for name in FILTERS if any(part in name for part in parts)]
    if not arms and not filters:
        names = ", ".join([*FILTERS, *(arm.name for arm in whole.arms)])
        raise RunError(f"no row has {rows!r} in its name; there are: {names}")
    return replace(whole, arms=arms), filters


if __name__ == "__main__":
    main()
