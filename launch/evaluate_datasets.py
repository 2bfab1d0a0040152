"""Evaluate networks on every data set in turn, so that what fails on one does not lose the scores of the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from wildfern.launch.errors import RunError
from wildfern.launch.evaluated import Evaluated, of_recipe
from wildfern.launch.evaluation_data import check_channels_of, check_for_labels, check_networks_of
from wildfern.launch.protocols import ProtocolLike, check_protocols
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.trained_on_test import trained_on_test
from wildfern.recipes import Recipe
from wildfern.ssl.data import Source
from wildfern.ssl.evaluation import EvaluationResult, Evaluator, FeatureStore, ProtocolsFailed, evaluate_backbones
from wildfern.ssl.evaluation.ranks import ALONE, Ranks
from wildfern.ssl.tracking import Progress


class Unfinished(RunError):
    """Some scores could not be computed; all others are in `evaluation`."""

    def __init__(self, message: str, evaluation: EvaluationResult) -> None:
        super().__init__(message)
        self.evaluation = evaluation


def evaluate_recipe(
    sources: Mapping[str, tuple[Source, Source]],
    backbones: Mapping[str, nn.Module],
    recipe: Recipe,
    protocols: Sequence[ProtocolLike],
    few_shot: Sequence[int],
    progress: Progress,
    device: torch.device,
    save: Callable[[EvaluationResult], None] | None = None,
    folder: RunFolder | None = None,
    ranks: Ranks = ALONE,
    when_read: Callable[[], None] = lambda: None,
) -> EvaluationResult:
    """Evaluate backbones of a recipe's network, with images at the size of its largest views and preprocessed like these.

    Test images that the run in `folder` was trained on are counted in the notes. Otherwise as `evaluate_datasets`.
    """
    evaluators = check_protocols(protocols, few_shot, recipe.evaluation.seeds)
    models = of_recipe(recipe, backbones, device)
    trained = [] if folder is None else [(folder, recipe)]
    shared = {"ranks": ranks, "when_read": when_read}
    return evaluate_datasets(sources, models, evaluators, progress, save, "random", trained=trained, **shared)


def evaluate_datasets(
    sources: Mapping[str, tuple[Source, Source]],
    models: Mapping[str, Evaluated],
    evaluators: Mapping[str, Evaluator],
    progress: Progress,
    save: Callable[[EvaluationResult], None] | None,
    baseline: str | Mapping[str, str],
    batch_size: int = 256,
    store: FeatureStore | None = None,
    keys: Mapping[str, Mapping[str, str]] | None = None,
    trained: Sequence[tuple[RunFolder, Recipe]] = (),
    ranks: Ranks = ALONE,
    when_read: Callable[[], None] = lambda: None,
) -> EvaluationResult:
    """Evaluate on every data set in turn; with several `ranks`, each calls it, and the result is that of rank 0.

    `save` gets the scores of each data set once they are known, with the details for a report; `when_read` is called on each rank
    when the images of all are read, once or again. Raises Unfinished, with all that
    could be computed, if a protocol or a data set failed and another did not; the error itself if nothing is left.
    """
    if not sources or not evaluators:
        raise RunError(
            "nothing to evaluate: name at least one data set, and a protocol or a number of labels per class"
        )
    check_for_labels(sources, evaluators)
    for label, model in models.items():
        check_channels_of(sources, model.channels, label)
        check_networks_of(evaluators, model.backbone, model.preprocessing.size)
    backbones = {label: model.backbone for label, model in models.items()}
    preprocessing = {label: model.preprocessing for label, model in models.items()}
    results: list[EvaluationResult] = []
    failures: dict[str, Exception] = {}
    for number, (name, (train, test)) in enumerate(sources.items()):
        result, error = None, None
        try:
            result = evaluate_backbones(
                backbones,
                train,
                test,
                dataset=name,
                evaluators=evaluators,
                preprocessing=preprocessing,
                baseline=baseline,
                batch_size=batch_size,
                progress=progress,
                store=store,
                data_keys=(keys or {}).get(name),
                details=save is not None,
                ranks=ranks,
                when_read=when_read if number + 1 == len(sources) else lambda: None,
            )
        except ProtocolsFailed as failed:
            result = failed.result if failed.result.rows else None
            failures[str(failed)] = failed
        except (ValueError, OSError) as failed:
            failures[_reason(failed, name)] = failed
        try:
            if result is not None and not ranks.rank:
                results.append(_noted(result, name, test, trained))
                if save is not None:
                    save(results[-1])
        except (ValueError, OSError) as caught:
            error = caught
        if number + 1 < len(sources):
            ranks.raise_on_all(error)
        elif error is not None:
            raise error
    when_read()  # also where the last one could not be read
    if ranks.rank:
        return EvaluationResult((), {}, baseline)
    if failures and not results:
        raise next(iter(failures.values()))
    evaluation = sum(results[1:], start=results[0])
    if failures:
        raise Unfinished(f"{'; '.join(failures)}. All other scores are complete", evaluation)
    return evaluation


def _reason(error: ValueError | OSError, dataset: str) -> str:
    """The message of an error, with the data set."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return text if dataset in text else f"{dataset}: {text}"


def _noted(
    result: EvaluationResult, name: str, test: Source, trained: Sequence[tuple[RunFolder, Recipe]]
) -> EvaluationResult:
    """The result with the notes on test images that runs were trained on."""
    notes = [note for folder, recipe in trained if (note := trained_on_test(folder, recipe, test)) is not None]
    return replace(result, notes={name: [*notes, *result.notes.get(name, [])]}) if notes else result


def scores(evaluation: EvaluationResult) -> dict[str, float]:
    """The main metric of the pretrained backbone for `metrics.jsonl`: {"DATASET/PROTOCOL": value}."""
    rows = [row for row in evaluation.main_rows() if row["backbone"] == "pretrained"]
    return {f"{row['dataset']}/{row['protocol']}": row["value"] for row in rows}
