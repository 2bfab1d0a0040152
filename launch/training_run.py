"""Pretrain from a recipe: assemble, resume, train, evaluate; everything is written to the run folder."""

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wildfern.files import UnsafeFile, is_regular, replacing
from wildfern.launch.assembly import Assembly, assemble, prepare_data
from wildfern.launch.builders import (
    agreed_precision,
    frozen_weights,
    scaled_learning_rate,
    separate_parts,
    unseen_pixels,
    untrained,
)
from wildfern.launch.cluster.distributed import DistributedContext, started
from wildfern.launch.cluster.first_contact import read_by_all
from wildfern.launch.cluster.heartbeat import HeartbeatEnded
from wildfern.launch.cluster.launcher_environment import check_launcher_environment, several_processes
from wildfern.launch.cluster.shared_folder import chosen_folder, exclusive
from wildfern.launch.components import read_recipe
from wildfern.launch.curated_record import evaluated_outside
from wildfern.launch.data_record import new_takedowns, record_data, record_resume, recorded_data
from wildfern.launch.departures import departures
from wildfern.launch.errors import RunError, disk_errors, errors_after_training, user_errors
from wildfern.launch.interrupts import advising
from wildfern.launch.long_run import MeasuredLongRun, expected_long_run
from wildfern.launch.pinned_data import pinned_manifests
from wildfern.launch.python_errors import brief_in_notebooks, to_resume
from wildfern.launch.resuming import (
    ResumePoint,
    changed_settings,
    check_same_run,
    load_newest_checkpoint,
    schedule_changes,
    with_former_form,
)
from wildfern.launch.run_decoder import write_decoder
from wildfern.launch.run_evaluation import backbone_state, decoder_state, evaluate_at_end, evaluate_during
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.run_path import RunPath
from wildfern.launch.segmentation_threshold import chosen_threshold
from wildfern.launch.startup import Startup
from wildfern.launch.views_image import draw_views
from wildfern.recipes import Recipe
from wildfern.ssl.data import Mixture
from wildfern.ssl.tracking import Tracker, WandbRun
from wildfern.ssl.tracking.formatting import duration
from wildfern.ssl.training import StopRequest, train
from wildfern.ssl.training.precision import computes_in_bf16

SLOW_BF16 = "training.precision is bf16, which is emulated on this CPU; fp32 or auto is many times faster"


class Stopped(Exception):
    """Training stopped on a signal, after a checkpoint; `exit_code` is 128 + the number of the signal."""

    def __init__(self, run: Path, step: int, signal_number: int, complete: bool = False) -> None:
        what = "training is complete, evaluate it" if complete else "continue"
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} after step {step}; {what} with {to_resume(run)}"
        )
        self.exit_code = 128 + signal_number


@brief_in_notebooks()
def pretrain(
    recipe: str | Path | Recipe,
    overrides: str | Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    since: float | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    startup: Startup | None = None,
) -> Path:
    """Train a recipe and return the path of the run folder, of which a notebook shows a summary.

    `recipe` is a bundled name, a path or a `Recipe`; `overrides` are `key.sub=value`. `resume` continues from the newest
    checkpoint in `run` (repeat the recipe and overrides), or starts at step 0 if there is none, with a message. The time
    to the first step counts from `since` on `time.perf_counter` (now, if None). `plugins` are Python files that register
    components, in addition to those that the recipe names; both are run. `startup` shows what is done until training begins.
    Raises RecipeErrors, RunError or DataError for an invalid command, recipe or data, Stopped after SIGINT, SIGTERM,
    SIGHUP or SIGUSR1 in training (before and after it Ctrl-C raises KeyboardInterrupt; both say how to resume), NotFinite when
    the loss diverges, ProcessLost when another rank is gone.
    """
    since = time.perf_counter() if since is None else since
    overrides = [overrides] if isinstance(overrides, str) else list(overrides or ())
    plugins = [plugins] if isinstance(plugins, str | Path) else list(plugins or ())
    if wrong := [value for value in overrides if not isinstance(value, str)]:
        raise RunError(f"overrides are texts such as training.steps=100, got {wrong[0]!r}")
    if not isinstance(recipe, str | Path | Recipe):
        raise RunError(f"the recipe is a name, a path or a Recipe, got {type(recipe).__name__}")
    name = "run" if isinstance(recipe, Recipe) else str(recipe)
    messages: list[str] = []
    check_launcher_environment(os.environ)
    given, startup = recipe, startup or Startup()

    def read() -> Recipe:
        startup.part("reading the recipe")
        if isinstance(given, Recipe):
            return given.with_plugins(plugins)
        found = read_recipe(given, overrides, plugins=plugins, announce=messages.append)
        startup.part("connecting the ranks" if several_processes(os.environ) else "preparing torch")
        return found

    with startup, read_by_all(read) as recipe, user_errors(), started(recipe) as context:
        folder = chosen_folder(run, name, resume, context)
        former = folder.recipe_if_started() if resume else None
        recipe = pinned_manifests(agreed_precision(recipe, context, former), context, former)
        recipe = with_former_form(recipe, former)
        if resume:
            check_same_run(recipe, folder)
        assembly = assemble(recipe, folder, context, startup.progress)
        prepare_data(assembly.mixture, context, startup.progress)
        weights = assembly.engine.method.backbone.weights
        with disk_errors(folder.path), exclusive(recipe, folder, resume, context), advising(partial(resuming, folder)):
            startup.part("loading the newest checkpoint" if resume else "writing the run folder")
            start = load_newest_checkpoint(recipe, folder, context, assembly) if resume else ResumePoint()
            assembly.engine.metadata["run"] = start.run_id
            if context.is_main:
                if resume and (former := folder.recipe_if_started()) is not None:
                    teacher = bool(assembly.engine.method.teachers())
                    messages += [*folder.changed_plugins(recipe), *changed_settings(former, recipe)]
                    messages += schedule_changes(former, recipe, start.step, teacher)
                    messages += new_takedowns(recipe, assembly.mixture, folder)
                if resume and (message := folder.keep_damaged_environment()) is not None:
                    messages.append(message)
                folder.begin(recipe, weights.as_json() if weights else None, start.run_id, context.world_size)
                if start.step == 0 or not recorded_data(folder):
                    startup.part(f"listing the files of {', '.join(entry.source for entry in recipe.data)}")
                    record_data(
                        recipe, assembly.mixture, folder, messages.append, (former or recipe) if resume else None
                    )
                else:
                    record_resume(assembly.mixture, folder, former or recipe)
            startup.close()
            with open_tracker(recipe, folder, context, start.step, since) as tracker:
                messages += [weights.message] if weights and not start.step else []
                messages += [] if start.step else frozen_weights(assembly.engine.method)
                notes = [*assembly.mixture.notes, *assembly.views.notes]
                method = assembly.engine.method
                messages += [*context.notes, *notes, *separate_parts(recipe, method)]
                messages += [*unseen_pixels(method, assembly.views), *scaled_learning_rate(recipe), *departures(recipe)]
                messages += evaluated_outside(recipe, assembly.mixture)
                messages += [*untrained(recipe), *start.messages, *_expected_long_run(recipe, context, start.step)]
                announce(recipe, folder, context, messages, tracker)
                if resume:
                    tracker.message(resumed(recipe, start))
                with tracker.progress("drawing views.png"):
                    draw_first_views(recipe, folder, context, assembly)
                notes += announce_new(assembly.mixture, notes, tracker)
                done, signal_number = train_to_end(recipe, folder, context, assembly, start, tracker)
                announce_new(assembly.mixture, notes, tracker)
                stopped = done < recipe.training.steps or signal_number is not None
                evaluated = recipe.evaluation.on and not stopped and context.world_size > 1
                state = backbone_state(assembly.engine) if evaluated else {}
                decoder = decoder_state(assembly.engine) if recipe.evaluation.on and not stopped else {}
                if stopped:
                    assembly.engine.close()
                    context.leave()
                    raise Stopped(folder.path, done, signal_number, done == recipe.training.steps)
                with errors_after_training(folder.path), advising(partial(trained, folder)):
                    evaluate_at_end(recipe, folder, context, assembly, state, tracker, decoder)
    return RunPath(folder.path)


def resumed(recipe: Recipe, start: ResumePoint) -> str:
    """Where training goes on, or that there is nothing left to train."""
    if start.step < recipe.training.steps:
        return f"resumed from step {start.step}" if start.step else "no checkpoint yet: starting at step 0"
    if recipe.evaluation.on:
        return f"the run was already complete after step {start.step}: nothing is trained, only evaluated again"
    return (
        f"the run was already complete after step {start.step}: nothing is trained, and evaluation.on is empty; "
        "scores that it has are from an earlier evaluation"
    )


def _expected_long_run(recipe: Recipe, context: DistributedContext, done: int) -> list[str]:
    """A message on rank 0, which prints, if the rest of the run is expected to take long on this CPU."""
    return expected_long_run(recipe, context.device, done, context.world_size) if context.is_main else []


def resuming(folder: RunFolder) -> str:
    """What to do after an interrupt, for its message; empty before the run has a recipe."""
    started = (folder.path / "recipe.yaml").is_file()
    return f"; continue with {to_resume(folder.path)}" if started else ""


def trained(folder: RunFolder) -> str:
    """The same after training."""
    return f" after training, which is complete; repeat the evaluation with {to_resume(folder.path)}"


def train_to_end(
    recipe: Recipe,
    folder: RunFolder,
    context: DistributedContext,
    assembly: Assembly,
    start: ResumePoint,
    tracker: Tracker,
) -> tuple[int, int | None]:
    """Train to the last step or to a signal: (steps done, number of the signal). Called on every rank.

    Raises HeartbeatEnded, on every rank, if the heartbeat of one has failed.
    """
    engine, evaluation = assembly.engine, recipe.evaluation
    began = time.monotonic()
    with assembly.checkpoints, StopRequest() as stop:
        done = train(
            assembly.config,
            engine,
            assembly.reader,
            assembly.schedule,
            tracker,
            assembly.checkpoints,
            stop,
            start.step,
            start.skipped_in_a_row,
            evaluate=partial(evaluate_during, recipe, context, assembly, tracker)
            if evaluation.every and evaluation.on
            else None,
            on_checkpoint=partial(write_backbone, recipe, folder, context, assembly, tracker),
            on_nonfinite=partial(folder.add_lines, "nonfinite.jsonl"),
            must_stop=context.heartbeat_ended,
            **({"on_step": MeasuredLongRun(recipe, tracker.message)} if context.device.type == "cpu" else {}),
        )
    if done > start.step:
        tracker.message(f"trained {done - start.step} steps in {duration(time.monotonic() - began)}")
    if skipped := assembly.mixture.skipped | assembly.views.skipped:
        name, reason = next(iter(skipped.items()))
        files, more = ("1 file", "") if len(skipped) == 1 else (f"{len(skipped):,} files", " …")
        tracker.message(f"{files} could not be used: {name}: {reason}{more} ({folder.path / 'skipped.jsonl'})")
    if done == recipe.training.steps:
        # Again: the run may have been killed after its last checkpoint.
        write_backbone(recipe, folder, context, assembly, tracker, at_end=True)
    engine.barrier()
    signal_number = stop.agreed(engine.any)
    if done < recipe.training.steps and signal_number is None:
        raise HeartbeatEnded(
            f"{'; '.join(context.ended_heartbeats())}; a checkpoint was saved after step {done}; continue with the same command "
            "and --resume"
        )
    return done, signal_number


def write_backbone(
    recipe: Recipe,
    folder: RunFolder,
    context: DistributedContext,
    assembly: Assembly,
    tracker: Tracker,
    at_end: bool = False,
) -> None:
    """Write `backbone.safetensors`, `decoder.safetensors` of a segmenter, and `skipped.jsonl`; called on every rank.

    With sharded checkpoints the weights, which rank 0 collects, are written `at_end` only. The threshold of a segmenter is chosen
    `at_end`.
    """
    due = at_end or not assembly.checkpoints.sharded
    state = backbone_state(assembly.engine, main_only=True) if due else {}
    decoder = decoder_state(assembly.engine, main_only=True) if due else {}
    if context.is_main:
        if state:
            folder.write_backbone(state)
        if decoder:
            threshold = chosen_threshold(folder, recipe, decoder, tracker) if at_end else None
            write_decoder(folder.path, decoder, folder.backbone_sha256(), threshold)
        folder.note_skipped(assembly.mixture.skipped | assembly.views.skipped, tracker.message)


def open_tracker(
    recipe: Recipe, folder: RunFolder, context: DistributedContext, start_step: int, since: float
) -> Tracker:
    """Console, metrics.jsonl and wandb, on rank 0 only; an error of wandb is raised on every rank."""
    error, wandb = None, None
    try:
        wandb = WandbRun(
            recipe.tracking.wandb,
            recipe.tracking.project,
            recipe.tracking.run_name or folder.path.name,
            folder.path,
            recipe.as_dict(),
            group=recipe.tracking.group,
            enabled=context.is_main,
        )
    except UnsafeFile as caught:
        error = RunError(f"{caught.filename} {caught.strerror}")
    except ValueError as caught:
        error = caught
    context.raise_on_all(error)
    return Tracker(
        folder.path,
        recipe.training.steps,
        start_step,
        recipe.training.log_every,
        images_per_step=recipe.training.batch_size,
        wandb=wandb,
        enabled=context.is_main,
        since=since,
    )


def announce(
    recipe: Recipe, folder: RunFolder, context: DistributedContext, messages: Sequence[str], tracker: Tracker
) -> None:
    """Print the path of the run and messages about its recipe and checkpoints."""
    tracker.message(f"run folder {folder.path}")
    if recipe.training.precision == "bf16" and not computes_in_bf16(context.device):
        tracker.message(SLOW_BF16)
    for message in messages:
        tracker.message(message)


def announce_new(mixture: Mixture, known: Sequence[str], tracker: Tracker) -> list[str]:
    """Print what was noted about images since they were first read, and return it."""
    new = [note for note in mixture.notes if note not in known]
    for note in new:
        tracker.message(note)
    return new


def draw_first_views(recipe: Recipe, folder: RunFolder, context: DistributedContext, assembly: Assembly) -> None:
    """Write `views.png` on rank 0, if it is missing; then set the type of the views for training."""
    file = folder.path / "views.png"
    if context.is_main and not is_regular(file):
        sheet = draw_views(assembly.mixture, assembly.views, recipe.seed, recipe.training.batch_size)
        with replacing(file) as image:
            sheet.save(image)
    assembly.views.dtype = assembly.view_dtype
