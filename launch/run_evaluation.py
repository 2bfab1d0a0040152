"""Evaluation of a run while it is training, and once at its end: every rank extracts a share of the features."""

from collections.abc import Mapping

from torch import Tensor, nn

from wildfern.launch.assembly import Assembly
from wildfern.launch.backbones import recipe_backbone
from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.launch.cluster.shared_evaluation import sharing_ranks
from wildfern.launch.errors import RunError
from wildfern.launch.evaluate_datasets import Unfinished, evaluate_recipe, scores
from wildfern.launch.evaluated import run_backbones
from wildfern.launch.run_decoder import attach_decoder, attach_random_decoder, attach_run_decoder, has_decoder
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.saved_evaluation import save_merged
from wildfern.recipes import Recipe
from wildfern.ssl.evaluation import EvaluationResult, write_report
from wildfern.ssl.models import Backbone
from wildfern.ssl.tracking import Tracker
from wildfern.ssl.training import Engine


def backbone_state(engine: Engine, main_only: bool = False) -> dict[str, Tensor]:
    """The weights of the method's evaluation backbone, on the CPU; called on every rank, gathered one tensor at a time.

    With `main_only` the other ranks keep nothing, and the result is empty there.
    """
    return _state(engine, engine.method.eval_backbone().network, main_only)


def decoder_state(engine: Engine, main_only: bool = False) -> dict[str, Tensor]:
    """The same of the method's decoder; empty for a method without."""
    decoder = engine.method.segmentation_decoder()
    return {} if decoder is None else _state(engine, decoder, main_only)


def _state(engine: Engine, module: nn.Module, main_only: bool) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        with engine.gather([value] if isinstance(value, nn.Parameter) else []):
            if engine.rank == 0 or not main_only:
                found[name] = value.detach().to("cpu", copy=True)
    return found


def evaluate_during(
    recipe: Recipe, context: DistributedContext, assembly: Assembly, tracker: Tracker
) -> dict[str, float]:
    """Scores in the middle of training, without few-shot sets; on rank 0, empty elsewhere. Called on every rank.

    What a protocol or data set cannot give is said in a message, and training goes on.
    """
    models = weighted_backbones(backbone_state(assembly.engine), recipe, decoder=decoder_state(assembly.engine))
    sources = assembly.evaluation_sources
    ranks = sharing_ranks(recipe, context, sources, models, tracker.message)
    found: dict[str, float] = {}
    try:
        if ranks is not None:
            with tracker.progress() as progress:
                found = scores(
                    evaluate_recipe(
                        sources, models, recipe, recipe.evaluation.protocols, (), progress, context.device, ranks=ranks
                    )
                )
    except Unfinished as unfinished:
        tracker.message(f"evaluation: {unfinished}")
        found = scores(unfinished.evaluation)
    except (ValueError, OSError) as error:
        tracker.message(f"evaluation without scores: {error}")
    context.barrier()
    return found


def evaluate_at_end(
    recipe: Recipe,
    folder: RunFolder,
    context: DistributedContext,
    assembly: Assembly,
    state: Mapping[str, Tensor],
    tracker: Tracker,
    decoder: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `evaluation.json` and `report.html` on rank 0; other ranks extract features, and leave before the last scores.

    Called on every rank with the weights of the backbone and of the decoder, if there is one, for which rank 0 reads those that
    it has written. Closes the engine.
    Raises Unfinished, once all is written, if some scores could not be computed.
    """
    wanted, unfinished = recipe.evaluation, None

    def save(evaluation: EvaluationResult) -> None:
        save_merged(folder, evaluation, tracker.message)

    left = False

    def leave() -> None:
        nonlocal left
        if not left:
            left = True
            assembly.engine.close()
            context.leave()

    if wanted.on:
        models, error = {}, None
        try:
            start, reason = start_backbone(recipe, folder, context)
            if reason is not None:
                tracker.message(reason)
            weights = folder.backbone_tensors() if context.is_main else state
            models = weighted_backbones(weights, recipe, start, decoder or {}, folder if context.is_main else None)
        except (ValueError, OSError) as caught:
            error = caught
        context.raise_on_all(error)
        sources = assembly.evaluation_sources
        ranks = sharing_ranks(recipe, context, sources, models, tracker.message)
        if ranks is not context:
            leave()
        if ranks is not None:
            try:
                with tracker.progress() as progress:
                    found = evaluate_recipe(
                        sources,
                        models,
                        recipe,
                        wanted.protocols,
                        wanted.few_shot,
                        progress,
                        context.device,
                        save,
                        folder,
                        ranks,
                        leave,
                    )
            except Unfinished as unfinished_error:
                found, unfinished = unfinished_error.evaluation, unfinished_error
            tracker.scores(found.as_json()["rows"])
    leave()
    if not context.is_main:
        return
    tracker.sync()
    write_report([folder.path], folder.path / "report.html")
    if unfinished is not None:
        raise unfinished


def start_backbone(
    recipe: Recipe, folder: RunFolder, context: DistributedContext
) -> tuple[Backbone | None, str | None]:
    """The network that the run started from, and why there is none; a rank that cannot read it does not share the evaluation."""
    try:
        return folder.start_backbone(recipe)
    except (ValueError, OSError):
        if context.is_main:
            raise
        return None, None


def weighted_backbones(
    state: Mapping[str, Tensor],
    recipe: Recipe,
    start: Backbone | None = None,
    decoder: Mapping[str, Tensor] | None = None,
    folder: RunFolder | None = None,
) -> dict[str, Backbone]:
    """The recipe's backbone with these weights, the random one, and `start` if given. Raises RunError for other weights.

    With the weights of a `decoder` all are segmenters, the last two with a random decoder; it is that of the run in `folder` if
    this is given and has one.
    """
    pretrained = recipe_backbone(recipe)
    try:
        pretrained.network.load_state_dict(state)
    except RuntimeError as error:  # of other names or shapes
        reason = " ".join(str(error).split())
        raise RunError(f"the weights are not those of this run's backbone: {reason[:300]}") from error
    found = run_backbones(recipe, start, pretrained)
    if decoder:
        for backbone in found.values():
            attach_random_decoder(backbone, recipe)
        if folder is not None and has_decoder(folder.path):
            attach_run_decoder(pretrained, folder, recipe)
        else:
            attach_decoder(pretrained, recipe, decoder)
    return found
