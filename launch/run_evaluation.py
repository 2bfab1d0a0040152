"""Evaluate the backbone of a run and the random one: during training, and once at its end."""

from collections.abc import Callable, Sequence

from torch import Tensor

from wildfern.launch.assembly import Assembly
from wildfern.launch.backbones import recipe_backbone
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.errors import RunError
from wildfern.launch.evaluated import run_backbones
from wildfern.launch.evaluating import evaluate_on, save_merged, scores
from wildfern.launch.run_folder import RunFolder
from wildfern.recipes import Component, Recipe
from wildfern.ssl.data import Source
from wildfern.ssl.evaluation import EvaluationResult, write_report
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import Progress, Tracker
from wildfern.ssl.tracking.progress import SILENT
from wildfern.ssl.training import Engine


def backbone_state(engine: Engine) -> dict[str, Tensor]:
    """The weights of the method's evaluation backbone, gathered, on the CPU; called on every rank."""
    backbone = engine.method.eval_backbone()
    with engine.gather(backbone.parameters()):
        return {name: value.detach().cpu().clone() for name, value in backbone.network.state_dict().items()}


def evaluate_during(
    recipe: Recipe, context: DistributedContext, assembly: Assembly, tracker: Tracker
) -> dict[str, float]:
    """Scores in the middle of training, without few-shot sets; computed on rank 0, empty elsewhere. Called on every rank."""
    state = backbone_state(assembly.engine)
    found: dict[str, float] = {}
    if context.is_main:
        with tracker.progress() as progress:
            sources, protocols = assembly.evaluation_sources, recipe.evaluation.protocols
            found = scores(evaluate_weights(state, recipe, sources, protocols, (), progress))
    assembly.engine.barrier()
    return found


def evaluate_at_end(
    recipe: Recipe, folder: RunFolder, sources: dict[str, tuple[Source, Source]], tracker: Tracker
) -> None:
    """Write `evaluation.json` and `report.html`; on rank 0, after the other ranks have left."""
    wanted = recipe.evaluation
    if wanted.on:
        state = folder.backbone_tensors()

        def save(evaluation: EvaluationResult) -> None:
            save_merged(folder, evaluation, tracker.message)

        start, reason = folder.start_backbone(recipe)
        if reason is not None:
            tracker.message(reason)
        with tracker.progress() as progress:
            found = evaluate_weights(
                state, recipe, sources, wanted.protocols, wanted.few_shot, progress, save, start, folder
            )
        tracker.scores(found.as_json()["rows"])
    tracker.sync()
    write_report([folder.path], folder.path / "report.html")


def evaluate_weights(
    state: dict[str, Tensor],
    recipe: Recipe,
    sources: dict[str, tuple[Source, Source]],
    protocols: Sequence[Component],
    few_shot: Sequence[int],
    progress: Progress = SILENT,
    save: Callable[[EvaluationResult], None] | None = None,
    start: Backbone | None = None,
    folder: RunFolder | None = None,
) -> EvaluationResult:
    """The scores of the recipe's backbone with these weights, of the random one, and of `start` if given, on each dataset."""
    pretrained = recipe_backbone(recipe)
    try:
        pretrained.network.load_state_dict(state)
    except RuntimeError as error:  # of other names or shapes
        reason = " ".join(str(error).split())
        raise RunError(f"the weights are not those of this run's backbone: {reason[:300]}") from error
    backbones = run_backbones(recipe, start, pretrained)
    return evaluate_on(sources, backbones, recipe, protocols, few_shot, recipe.evaluation.seeds, progress, save, folder)
