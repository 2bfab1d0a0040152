"""`wildfern pretrain … --dry-run`: what a run would read, need and take, from a few real steps; writes nothing."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import torch

from wildfern.launch import estimate as estimates
from wildfern.launch.assembly import Assembly, assemble
from wildfern.launch.builders import scaled_learning_rate, separate_parts, unseen_pixels, untrained, with_precision
from wildfern.launch.cluster.distributed import DistributedContext, start
from wildfern.launch.components import read_recipe, say
from wildfern.launch.departures import departures
from wildfern.launch.errors import RunError, user_errors
from wildfern.launch.expected_time import UTILIZATION, matrix_flops, rough_duration
from wildfern.launch.memory_available import memory_available
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.startup import Startup
from wildfern.printable import printable
from wildfern.recipes import Component, Recipe
from wildfern.ssl.data import DataError, Source
from wildfern.ssl.tracking.formatting import speed, step_time
from wildfern.ssl.training import Engine
from wildfern.ssl.training.footprint import bytes_of
from wildfern.ssl.training.trial_steps import Trial, trial_steps

LONGEST_STEP = 8.0  # seconds expected of one step; else fewer images are measured
MOST_MEMORY = 0.7  # share of the available memory


def dry_run(
    name: str,
    overrides: Sequence[str],
    run: Path | None = None,
    plugins: Sequence[str | Path] = (),
    ranks: int = 1,
) -> None:
    """Print the resolved recipe, and as YAML comments what it reads, its network, memory, time, disk and evaluations.

    The whole output is a recipe. Trains a few steps in this process with the torch engine; downloads no data set.
    `ranks` is the number of processes of the run, for a note. Raises the errors of `pretrain`.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no messages of torch's profiler, which measures memory
    messages: list[str] = []
    recipe = read_recipe(name, overrides, plugins=plugins, announce=messages.append)
    with user_errors():
        folder = RunFolder.for_writing(run, name, resume=False)
        here = with_torch_engine(_without_downloads(recipe))
        context = start(here)
        recipe, here = with_precision(recipe, context.device), with_precision(here, context.device)
        command = " ".join([name, *overrides])
        _print_comments([f"wildfern pretrain {command}, a dry run: nothing is written"])
        print(recipe.as_yaml(), end="", flush=True)
        try:
            with Startup() as startup:  # a large folder takes long
                assembly = assemble(here, folder, context, startup.progress)
        except DataError as error:
            more = "" if here.data == recipe.data else " (--dry-run downloads nothing; the run itself will)"
            raise RunError(f"{error}{more}") from error
        method = assembly.engine.method
        messages += [*assembly.mixture.notes, *assembly.views.notes, *separate_parts(here, method)]
        messages += [*unseen_pixels(method, assembly.views), *scaled_learning_rate(here)]
        messages += [*departures(here), *untrained(here)]
        if ranks > 1:
            batch = f"the whole batch of {recipe.training.batch_size} images"
            messages.append(f"memory and time below are those of one process with {batch}, which {ranks} will share")
        for lines in (_data(recipe, assembly), _network(recipe, assembly), [f"note: {m}" for m in messages]):
            _print_comments(lines)
        say("a few real steps …")
        trial, words, engine = _measured(here, assembly, folder, context)
        for lines in (
            words,
            _time(recipe, trial, context.device),
            _disk(recipe, bytes_of(engine.snapshot().values()), folder),
        ):
            _print_comments(lines)
        _print_comments(_evaluation(recipe))


def size_words(size: float) -> str:
    """Bytes as `340 KiB`, `12 MiB`, `7.5 GiB`."""
    unit, factor = next(((u, f) for u, f in (("GiB", 2**30), ("MiB", 2**20)) if size >= f), ("KiB", 2**10))
    number = size / factor
    return f"{number:.2g} {unit}" if number < 10 else f"{number:,.0f} {unit}"


def with_torch_engine(recipe: Recipe) -> Recipe:
    """The recipe for one process without DeepSpeed."""
    return recipe.model_copy(update={"engine": Component(name="torch")})


def _without_downloads(recipe: Recipe) -> Recipe:
    def cut(arguments: dict) -> dict:
        return {**arguments, "download": False} if arguments.get("download") else arguments

    data = [entry.model_copy(update={"arguments": cut(entry.arguments)}) for entry in recipe.data]
    on = [entry.model_copy(update={"arguments": cut(entry.arguments)}) for entry in recipe.evaluation.on]
    evaluation = recipe.evaluation.model_copy(update={"on": on})
    return recipe.model_copy(update={"data": data, "evaluation": evaluation})


def _data(recipe: Recipe, assembly: Assembly) -> Iterator[str]:
    total = sum(entry.weight for entry in recipe.data)
    for entry, source in zip(recipe.data, assembly.mixture.sources, strict=True):
        share = f", {entry.weight / total:.0%} of the images" if len(recipe.data) > 1 else ""
        yield f"data: {entry.source}: {_contents(source)}{share}"
        if skipped := source.skipped:
            name, reason = next(iter(skipped.items()))
            yield f"data: {entry.source}: {len(skipped):,} skipped so far, for example {name}: {reason}"
    seen = recipe.training.steps * recipe.training.batch_size
    items = assembly.mixture.num_items
    yield f"data: {seen:,} images in {recipe.training.steps:,} steps" + (
        f", {seen / items:,.3g} times each" if items else ""
    )


def _contents(source: Source) -> str:
    number = "endless" if source.num_items is None else f"{source.num_items:,} images"
    try:
        classes = source.num_classes if source.reads_labels else None
    except DataError:  # labels that cannot be used, and that nothing needs
        classes = None
    return ", ".join(part for part in (number, source.split_words, classes and f"{classes:,} classes") if part)


def _network(recipe: Recipe, assembly: Assembly) -> Iterator[str]:
    method = assembly.engine.method
    groups = " and ".join(f"{count} of {size} px" for count, size in assembly.views.shape)
    yield f"views: {recipe.views.name}, {groups}, {assembly.views.channels} channels"
    own, trained = (sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (method.backbone, method))
    yield (
        f"network: {recipe.model.backbone}, {own:,} parameters, features of width {method.backbone.width:,}; with the heads of "
        f"{recipe.method.name} {trained:,} trained parameters"
    )


@dataclass(frozen=True)
class _Expected:
    """What the dry run of `wildfern plan` says about one step on this machine."""

    bytes: int
    seconds: float | None  # on a CPU


def _measured(
    recipe: Recipe, assembly: Assembly, folder: RunFolder, context: DistributedContext
) -> tuple[Trial, list[str], Engine]:
    """The trial, its time scaled to the whole batch, lines about memory, and the engine that trained.

    A batch that is expected to be too slow or too large here is measured with fewer images.
    """
    expected, batch_size, available = _expected(recipe, context.device), recipe.training.batch_size, None
    available = memory_available(context.device)
    fits, measured = 1.0, recipe
    if expected is not None:
        if available is not None:
            fits = min(fits, MOST_MEMORY * available / expected.bytes)
        if expected.seconds is not None:
            fits = min(fits, LONGEST_STEP / expected.seconds)
    if fits < 1:
        images = max(2, int(batch_size // recipe.training.accumulation * fits))
        training = recipe.training.model_copy(update={"batch_size": images, "accumulation": 1})
        measured = recipe.model_copy(update={"training": training})
        assembly = assemble(measured, folder, context)
    config, engine = assembly.config, assembly.engine
    trial = trial_steps(config, engine, assembly.reader, assembly.schedule, memory=measured is recipe)
    there = "" if available is None else f"; {size_words(available)} are available"
    place = "the GPU" if context.device.type == "cuda" else "this machine"
    if trial.peak is not None:
        lines = [f"memory: {size_words(trial.peak)} at the peak of a real step on {place}{there}"]
    else:
        assert expected is not None
        few = f"measured with {trial.batch_size} of {batch_size} images, since a step with all of them "
        why = "would not fit" if available and expected.bytes > MOST_MEMORY * available else "would take long"
        lines = [f"memory: about {size_words(expected.bytes)}, estimated{there}", f"note: {few}{why}"]
    factor = batch_size / trial.batch_size
    whole = replace(
        trial,
        batch_size=batch_size,
        step_seconds=trial.step_seconds * factor,
        data_seconds=trial.data_seconds * factor,
    )
    return whole, lines, engine


def _expected(recipe: Recipe, device: torch.device) -> _Expected | None:
    try:
        found = estimates.estimate(recipe, 1)
    except RunError:  # a method that reads values; its steps are measured
        return None
    seconds = None
    if device.type == "cpu":
        seconds = found.step_flops / (UTILIZATION * matrix_flops(device, recipe.training.precision))
    return _Expected(found.stages[None].total, seconds)


def _time(recipe: Recipe, trial: Trial, device: torch.device) -> Iterator[str]:
    seconds = recipe.training.steps * trial.step_seconds
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    per_step = step_time(trial.step_seconds) if trial.step_seconds < 90 else rough_duration(trial.step_seconds)
    yield (
        f"time: {per_step} per step, {speed(trial.images_per_second)} images/s on {where} (mean of "
        f"{trial.steps} real steps after the first), {trial.data_wait:.0%} of it waiting for data"
    )
    ends = (
        f", until {datetime.now() + timedelta(seconds=seconds):%a %d %b %Y %H:%M} if it starts now"
        if seconds < 3e8
        else ""
    )
    total = f"about {rough_duration(seconds)} for {recipe.training.steps:,} steps{ends}"
    yield f"time: {total}; checkpoints and evaluation not included"


def _disk(recipe: Recipe, one: int, folder: RunFolder) -> Iterator[str]:
    """`one`: bytes of a checkpoint."""
    training = recipe.training
    kept = training.keep_checkpoints + (training.steps // training.keep_every if training.keep_every else 0)
    kept = min(kept + 1, -(-training.steps // training.checkpoint_every) + (1 if training.checkpoint_minutes else 0))
    there = next(p for p in (folder.path.absolute(), *folder.path.absolute().parents) if p.exists())
    yield (
        f"disk: checkpoints of {size_words(one)}, at most {kept} at a time: {size_words(kept * one)}; "
        f"{size_words(shutil.disk_usage(there).free)} are free at {folder.path}"
    )


def _evaluation(recipe: Recipe) -> Iterator[str]:
    wanted = recipe.evaluation
    if not wanted.on:
        yield "evaluation: none"
        return
    protocols = [protocol.name for protocol in wanted.protocols]
    protocols += [f"{labels} labels per class" for labels in wanted.few_shot]
    when = f"every {wanted.every:,} steps and at the end" if wanted.every else "at the end"
    yield f"evaluation: on {', '.join(entry.source for entry in wanted.on)} with {', '.join(protocols)}, {when}"


def _print_comments(lines: Sequence[str] | Iterator[str], out: Callable[[str], None] = print) -> None:
    for line in lines:
        out(f"# {printable(line)}")
