"""One run folder for all ranks: chosen and locked by rank 0."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.cluster.run_lock import lock
from wildfern.launch.resuming import check_same_run
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Recipe


def chosen_folder(run: str | Path | None, name: str, resume: bool, context: DistributedContext) -> RunFolder:
    """The run folder, chosen on rank 0; its error is raised on every rank."""
    given = Path(run) if run else None
    return RunFolder(context.broadcast_from_main(lambda: RunFolder.for_writing(given, name, resume).path))


@contextmanager
def exclusive(recipe: Recipe, folder: RunFolder, resume: bool, context: DistributedContext) -> Iterator[None]:
    """Make the run folder and lock it, on rank 0; its error is raised on every rank.

    Checks inside the lock, once more, that the run may start or resume: another run may have used the folder since it was
    chosen.
    """
    with ExitStack() as stack:

        def take() -> None:
            folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder.path))
            folder.check_files()
            if resume:
                check_same_run(recipe, folder)
            else:
                folder.check_new()

        context.broadcast_from_main(take)
        yield
