"""One run folder for all processes of a run: chosen together, the same run's if it goes on, and nobody else's meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from wildfern.launch.assembling import DistributedContext
from wildfern.launch.run_folder import RunError, RunFolder
from wildfern.launch.run_lock import lock
from wildfern.recipes import Recipe

MAY_CHANGE = {"training", "engine", "evaluation", "tracking"}

# Arguments of data that change how images come, not which. (Where `check_headers` finds faulty files the number of items is
# another one, and that is refused when the checkpoint is read.)
SAME_IMAGES = {"threads", "download", "check_headers"}


def check_same_run(recipe: Recipe, folder: RunFolder) -> None:
    """Refuse to go on with a run under a recipe that would make another run of it."""
    if not (folder.path / "recipe.yaml").is_file():
        return
    then, now = folder.recipe(), recipe
    other = [
        name
        for name in type(then).model_fields
        if name not in MAY_CHANGE | {"data"} and getattr(then, name) != getattr(now, name)
    ]
    if _images(then) != _images(now):
        other.append("data")
    for name in ("batch_size", "accumulation", "precision"):
        if getattr(then.training, name) != getattr(now.training, name):
            other.append(f"training.{name}")
    if other:
        raise RunError(
            f"{folder.path} is a run of another recipe: {', '.join(other)} differ. Repeat the command that started it, with "
            f"--resume, or give {folder.path / 'recipe.yaml'} as the recipe"
        )


def check_same_items(recipe: Recipe, then: list[int | None] | None, now: list[int | None]) -> None:
    """Refuse to go on where a source holds more or fewer items (None: endless) than when the checkpoint was written.

    The order of a pass follows from their number, so that one file more would make another run of it. `then` is None in
    checkpoints that do not say.
    """
    then = then or now
    if len(then) != len(now):
        raise RunError(
            f"the recipe has {len(now)} sources of data, and had {len(then)} when the checkpoint was written: go on with the "
            "recipe that the run was begun with, or start anew in another run folder"
        )
    for entry, before, found in zip(recipe.data, then, now, strict=True):
        if before != found:
            raise RunError(
                f"{entry.source} has {found} items now, and had {before} when the checkpoint was written: a run goes on with "
                "the same images alone. Put back the data as they were, or start anew in another run folder"
            )


def _images(recipe: Recipe) -> list[tuple[str, float, dict[str, Any]]]:
    """What of `data` decides on the images."""
    return [
        (entry.source, entry.weight, {k: v for k, v in entry.arguments.items() if k not in SAME_IMAGES})
        for entry in recipe.data
    ]


def chosen_folder(run: str | Path | None, name: str, resume: bool, context: DistributedContext) -> RunFolder:
    """The run folder, chosen by the first process; its error, if any, is everybody's."""
    given = Path(run) if run else None
    return RunFolder(context.broadcast_from_main(lambda: RunFolder.for_writing(given, name, resume).path))


@contextmanager
def exclusive(recipe: Recipe, folder: RunFolder, resume: bool, context: DistributedContext) -> Iterator[None]:
    """Make the run folder and keep other runs out of it, by the first process; its error, if any, is everybody's.

    Whether the run may be begun, or gone on with, is asked (again) inside: another may have come and gone since the folder was
    chosen.
    """
    with ExitStack() as stack:

        def take() -> None:
            folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder.path))
            if resume:
                check_same_run(recipe, folder)
            else:
                folder.check_new()

        context.broadcast_from_main(take)
        yield
