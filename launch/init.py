"""`wildfern init FOLDER`: write a recipe for a folder of images, a machine and a time."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wildfern.launch.assembly import assemble
from wildfern.launch.builders import with_precision
from wildfern.launch.cluster.distributed import start
from wildfern.launch.components import read_recipe, say
from wildfern.launch.device import choose_device
from wildfern.launch.dry_run import with_torch_engine
from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.expected_time import UTILIZATION, matrix_flops, rough_duration
from wildfern.launch.folder_survey import Survey, survey_folder
from wildfern.launch.init_text import Choice, recipe_of_folder
from wildfern.launch.network_choice import choose_network
from wildfern.launch.output_paths import output_file, writing
from wildfern.launch.plugin_option import run_plugins
from wildfern.launch.run_folder import RunFolder
from wildfern.ssl.tracking.progress import SILENT, Progress
from wildfern.ssl.training.precision import computes_in_bf16
from wildfern.ssl.training.trial_steps import trial_steps

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
BATCH_SIZES = {"cpu": 64, "cuda": 256, "mps": 64}
LEAST_STEPS = 300
FOR_TRAINING = 0.9  # share of the time; the rest is for starting, checkpoints and evaluation


def init_recipe(
    folder: str,
    out: Path,
    time: str = "1h",
    plugins: Sequence[str] = (),
    force: bool = False,
    progress: Progress = SILENT,
) -> tuple[Path, list[str]]:
    """Write a commented recipe for the images in `folder`; returns its path, and lines about what was found and chosen.

    Network, sizes and steps are chosen so that training takes about `time` ("30m", "1h30m", "2d") on this machine, measured
    with a few real steps. Raises RunError for an existing file, unless `force`, and for a folder without images to train on.
    """
    time = " ".join(time.split())
    seconds = seconds_of(time)
    try:
        folder.encode("utf-8")
    except UnicodeEncodeError:
        raise RunError(f"the name of the folder is not UTF-8, and a recipe must be: rename {folder!r}") from None
    out = output_file(out)
    if os.path.lexists(out) and not force:
        raise RunError(f"{out} exists: add --force to replace it, or choose another file with --out")
    run_plugins(list(plugins))
    with user_errors():
        progress.part(f"examining {folder}")
        survey = survey_folder(folder)
        progress.part("measuring the speed of this machine")
        device = choose_device("auto")
        precision = "bf16" if computes_in_bf16(device) else "fp32"
        flops = UTILIZATION * matrix_flops(device, precision)
        beside = [os.path.relpath(os.path.expanduser(path), out.parent) for path in plugins]
        choice = Choice(
            folder=folder,
            network=choose_network(survey.side, flops, FOR_TRAINING * seconds),
            batch_size=BATCH_SIZES[device.type],
            loader_threads=max(1, min(8, (os.cpu_count() or 1) // 2)),
            time=time,
            plugins=beside,
        )
        say(f"{survey.images:,} images; a few real steps of {choice.network.backbone} at {choice.network.size} px …")
        per_step = _step_seconds(survey, replace(choice, plugins=[]), plugins)
    steps = max(1, int(FOR_TRAINING * seconds / per_step))
    choice = replace(choice, steps=_rounded_down(steps), log_every=max(1, min(100, round(10 / per_step))))
    with writing(out) as path:
        path.write_text(recipe_of_folder(survey, choice), encoding="utf-8")
    return out, _found(survey, choice, per_step, device)


def seconds_of(time: str) -> float:
    """The seconds of a duration such as 30m, 1h30m or 2d."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])\s*", time)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != re.sub(r"\s", "", time):
        raise RunError(f"--time must be a duration such as 30m, 1h, 1h30m or 2d, got {time!r}")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not 10 <= seconds <= 366 * 86400:
        raise RunError(f"--time must be from 10 seconds to a year, got {time}")
    return seconds


def _step_seconds(survey: Survey, choice: Choice, plugins: Sequence[str]) -> float:
    """Seconds of a step of the recipe on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        with writing(Path(folder) / "draft.yaml") as path:
            path.write_text(recipe_of_folder(survey, choice), encoding="utf-8")
        draft = with_torch_engine(read_recipe(Path(folder) / "draft.yaml", plugins=plugins))
        context = start(draft)
        draft = with_precision(draft, context.device)
        assembly = assemble(draft, RunFolder(Path(folder) / "run"), context)
        trial = trial_steps(assembly.config, assembly.engine, assembly.reader, assembly.schedule, memory=False)
    return trial.step_seconds


def _rounded_down(number: int) -> int:
    """To two significant digits."""
    factor = 10 ** max(0, len(str(number)) - 2)
    return number // factor * factor


def _found(survey: Survey, choice: Choice, per_step: float, device: torch.device) -> list[str]:
    kind = "gray images" if survey.gray else f"images of {survey.channels} channels"
    sizes = f"typically {survey.width} × {survey.height} px"
    lines = [f"{survey.images:,} {kind}, {sizes}" + (f", {len(survey.classes)} classes" if survey.classes else "")]
    if survey.skipped:
        name, reason = next(iter(survey.skipped.items()))
        lines.append(f"{len(survey.skipped)} cannot be used, for example {name}: {reason}")
    lines += survey.notes
    network = choice.network
    width = " (narrow)" if network.arguments else ""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    lines.append(
        f"{network.backbone}{width} at {network.size} px, {choice.batch_size / per_step:,.0f} images/s on {where}: "
        f"{choice.steps:,} steps of {choice.batch_size} images take about {rough_duration(choice.steps * per_step)}"
    )
    if few := choice.about_few(survey):
        lines.append(few)
    if choice.steps < LEAST_STEPS:
        lines.append(f"{choice.steps} steps are few for training: give it more time (--time), or use a GPU")
    return lines
