"""Resume a run: whether recipe and data are still the same, and from which checkpoint."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wildfern.launch.assembly import Assembly
from wildfern.launch.builders import build_schedule, method_steps
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.data_record import changed_files, check_same_files
from wildfern.launch.errors import RunError
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.run_id import is_run_id, new_run_id
from wildfern.recipes import Recipe

MAY_CHANGE = {"plugins", "training", "engine", "evaluation", "tracking"}

# Arguments of data that change how images are read, not which. (If `check_headers` finds faulty files, the number of items
# changes, and `check_same_items` refuses it.)
SAME_IMAGES = {"threads", "download", "check_headers", "index", "memory_gb", "disk_gb", "cache_gb"}
SAME_NUMBERS = {"activation_checkpointing"}  # keys of model that change no number
SAME_TRAINING = ("batch_size", "accumulation", "precision")  # keys of training that must stay


def check_same_run(recipe: Recipe, folder: RunFolder) -> None:
    """Raise RunError if the recipe differs from the run's in anything that changes the result."""
    then, now = folder.recipe_if_started(), recipe
    if then is None:
        return
    other = [
        name
        for name in type(then).model_fields
        if name not in MAY_CHANGE | {"data", "schedule", "optimizer", "model"}
        and getattr(then, name) != getattr(now, name)
    ]
    if _network(then) != _network(now):
        other.append("model")
    # Not as they are stated: a rate may be stated for 256 images now, and for the batch then.
    if (then.optimizer.name, then.optimizer_arguments) != (now.optimizer.name, now.optimizer_arguments):
        other.append("optimizer")
    if _curve(then) != _curve(now):
        other.append("schedule")
    if _images(then) != _images(now):
        other.append("data")
    for name in SAME_TRAINING:
        if getattr(then.training, name) != getattr(now.training, name):
            other.append(f"training.{name}")
    banks = [bank.images for one in (then, now) if (bank := one.evaluation.online_knn) is not None]
    if len(set(banks)) > 1:  # the bank in the checkpoint is of another size
        other.append("evaluation.online_knn.images")
    if other:
        keys = _changes(*(_determining(recipe, len(then.data) == len(now.data) == 1) for recipe in (then, now)))
        raise RunError(
            f"{folder.path} is a run of another recipe: {', '.join(other)} differ{f' ({keys})' if keys else ''}. Repeat the "
            f"command that started it with --resume, or use {folder.path / 'recipe.yaml'} as the recipe"
        )


def with_former_form(recipe: Recipe, former: Recipe | None) -> Recipe:
    """The recipe with the form of checkpoints of the run that it resumes, where it says `auto`."""
    if former is None or recipe.training.checkpoint_form != "auto":
        return recipe
    form = {"checkpoint_form": former.training.checkpoint_form}
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=form)})


def changed_settings(then: Recipe, now: Recipe) -> list[str]:
    """A message that lists the settings that differ from those the run had, which all may differ; plugins have their own."""
    said = _changes(then.as_dict(), now.as_dict())
    return [f"changed settings: {said}"] if said else []


def _changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The keys that differ, each with both values; empty if none does."""
    before, after = dict(_settings(then)), dict(_settings(now))
    names = [name for name in before | after if before.get(name) != after.get(name)]
    said = [f"{name} {_short(before.get(name))} → {_short(after.get(name))}" for name in names[:SHOWN]]
    return ", ".join(said) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _determining(recipe: Recipe, one_source: bool) -> dict[str, Any]:
    """What `check_same_run` compares, by the recipe's keys: `data.order`, or `data.0.order` of several sources."""
    plain = recipe.as_dict()
    found = {name: plain[name] for name in plain if name not in MAY_CHANGE}
    found["model"] = {key: plain["model"][key] for key in plain["model"] if key not in SAME_NUMBERS}
    found["optimizer"] = {"name": recipe.optimizer.name, **recipe.optimizer_arguments}
    found["schedule"] = {"name": recipe.schedule.name, **recipe.schedule.arguments}
    found["data"] = _images(recipe)[0] if one_source else _images(recipe)
    found["training"] = {key: plain["training"][key] for key in SAME_TRAINING}
    if (bank := recipe.evaluation.online_knn) is not None:
        found["evaluation"] = {"online_knn": {"images": bank.images}}
    return found


def _settings(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Values by recipe key, such as ("data.threads", 2) or ("data.0.threads", 2); a list of values is one value."""
    if isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        yield name, tree
        return
    for key, value in tree.items():
        if name or key != "plugins":
            yield from _settings(value, f"{name}.{key}" if name else key)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


def _curve(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """The part of `schedule` that a resumed run keeps; `length` and `afterwards` may change with training.steps."""
    return recipe.schedule.name, recipe.schedule.arguments


def schedule_changes(then: Recipe, now: Recipe, step: int, teacher: bool) -> list[str]:
    """A message if other training.steps or another length of the schedule change values at `step`, where a run resumes.

    `teacher`: whether the method has a momentum teacher, whose momentum follows the length too.
    """
    if step == 0 or (then.training.steps, then.schedule) == (now.training.steps, now.schedule):
        return []
    before, after = build_schedule(then), build_schedule(now)
    trained = step >= then.training.steps  # to the end of its former schedule
    changes = []
    for name, old, new in (
        ("learning rate", before.learning_rate, after.learning_rate),
        ("weight decay", before.weight_decay, after.weight_decay),
    ):
        base = now.optimizer_arguments[name.replace(" ", "_")]
        was, is_now = base * old(step - trained), base * new(step)
        if not math.isclose(was, is_now, rel_tol=0.01):
            times = f" ({is_now / was:.2g} ×)" if was else ""
            where = f"after {was:.2g} at step {step - 1}" if trained else f"instead of {was:.2g}"
            changes.append(f"the {name} is {is_now:.2g} at step {step}, {where}{times}")
    if teacher and method_steps(then) != method_steps(now):
        changes.append(f"the teacher's momentum rises over {method_steps(now)} steps instead of {method_steps(then)}")
    if not changes:
        return []
    message = f"the schedule has changed: {'; '.join(changes)}"
    if now.schedule.length is None and then.training.steps < now.training.steps:
        message += (
            f". To hold the values that it had at the end of {then.training.steps} steps, add "
            f"schedule.length={then.training.steps}; to start it again over the remaining steps, with its warm-up, also add "
            "schedule.afterwards=restart"
        )
    return [message]


def check_same_items(
    recipe: Recipe,
    then: list[int | None] | None,
    now: list[int | None],
    files: Callable[[int], str] = lambda number: "",
) -> None:
    """Raise RunError if a source has another number of items (None: endless) than when the checkpoint was written.

    The order of images depends on the number: one more file changes every batch. `then` is None in checkpoints that do
    not record it. `files` says in words which files of a source have changed.
    """
    then = then or now
    if len(then) != len(now):
        raise RunError(
            f"the recipe has {len(now)} data sources, but had {len(then)} when the checkpoint was written: resume with the "
            "recipe that the run was started with, or use a new run folder"
        )
    for number, (entry, before, found) in enumerate(zip(recipe.data, then, now, strict=True)):
        if before != found:
            changed = f" ({words})" if (words := files(number)) else ""
            raise RunError(
                f"{entry.source} has {found} items now, but had {before} when the checkpoint was written{changed}. A run resumes "
                "only on the same data: restore it, or use a new run folder"
            )


def _network(recipe: Recipe) -> dict[str, Any]:
    """The part of `model` that determines the numbers."""
    return recipe.model.model_dump(exclude=SAME_NUMBERS)


def _images(recipe: Recipe) -> list[dict[str, Any]]:
    """The part of `data` that determines the images and their order, by the recipe's keys.

    The column `image` is the first that is looked for by default. The contents of a `guide` are compared by `check_same_files`.
    """
    data = recipe.as_dict()["data"]
    found = []
    for entry in data if isinstance(data, list) else [data]:
        images = {key: value for key, value in entry.items() if key not in SAME_IMAGES | {"fingerprint"}}
        images["order"] = entry.get("order", "random")
        images["guide"] = "given" if "guide" in entry else None
        if images.get("image_column") == "image":
            images["image_column"] = None
        found.append(images)
    return found


SHOWN, MOST_SHOWN = 8, 40  # changed settings, and characters of a value


@dataclass(frozen=True)
class ResumePoint:
    """Where training starts: at step 0, or after the newest intact checkpoint."""

    step: int = 0
    skipped_in_a_row: int = 0  # steps skipped just before the checkpoint
    messages: list[str] = field(default_factory=list)  # about newer checkpoints that are damaged
    run_id: str = field(default_factory=new_run_id)  # of the run's checkpoints, on rank 0


def load_newest_checkpoint(
    recipe: Recipe, folder: RunFolder, context: DistributedContext, assembly: Assembly
) -> ResumePoint:
    """Load the newest intact checkpoint into the engine, if there is one; called on every rank.

    The id of the run is that of its `environment.json`, else that of the checkpoint, else a new one. Raises RunError, on every
    rank, for other data than the run was started with, for a run that is past its last step, and for a state of another network.
    """

    def find() -> tuple[int | None, int, list[str], str]:
        run_id = folder.run_id()
        newest, damaged = assembly.checkpoints.newest(run_id)
        metadata = {} if newest is None else assembly.checkpoints.metadata(newest)
        changed = partial(changed_files, assembly.mixture, folder)
        check_same_items(recipe, metadata.get("items"), assembly.engine.metadata["items"], changed)
        if newest is not None:
            check_same_files(recipe, assembly.mixture, folder)
        found = metadata.get("run")
        return (
            newest,
            metadata.get("skipped_in_a_row", 0),
            damaged,
            run_id or (found if is_run_id(found) else new_run_id()),
        )

    newest, skipped, messages, run_id = context.broadcast_from_main(find)
    if newest is None:
        return ResumePoint(run_id=run_id)
    if newest > recipe.training.steps:
        raise RunError(f"{folder.path} is at step {newest}, past training.steps {recipe.training.steps}")
    checkpoint = assembly.checkpoints.path(newest)
    refused = None
    if not checkpoint.is_dir():
        refused = RunError(
            f"rank {context.rank} does not see {checkpoint}, which rank 0 does: --run must be on a file system that all "
            "hosts share"
        )
    else:
        try:
            assembly.engine.load(checkpoint)
        except ValueError as error:
            refused = RunError(
                f"{error}. Rename or remove {checkpoint} to resume from the checkpoint before it, or use a new run folder"
            )
            refused.__cause__ = error
    context.raise_on_all(refused)  # a rank reads only its part
    if (probe := assembly.engine.probe) is not None:
        absent = [part.absent for part in probe.parts if not part.steps]
        messages = [*messages, *(f"the checkpoint has {words} at step {newest}" for words in absent)]
    return ResumePoint(newest, skipped, messages, run_id)
