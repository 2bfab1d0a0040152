"""Build the evaluations by training labels that a recipe asks for while training."""

import torch

from wildfern.launch.errors import RunError
from wildfern.recipes import Recipe
from wildfern.ssl.data import Mixture
from wildfern.ssl.methods import Method
from wildfern.ssl.training import OnlineEvaluation, OnlineKNN, OnlineProbe, SeveralOnlineEvaluations

MOST_PROBED_CLASSES = 100_000


def build_probe(recipe: Recipe, mixture: Mixture, method: Method, device: torch.device) -> OnlineEvaluation | None:
    """The evaluations by training labels while training, if the recipe asks for any."""
    keys = online_keys(recipe)
    if not keys:
        return None
    which, s, them = f"evaluation.{' and evaluation.'.join(keys)}", "s", "it"
    if len(keys) > 1:
        s, them = "", "both"
    if len(mixture.sources) > 1:
        raise RunError(f"{which} need{s} the labels of one source, but data names several: set {them} to null")
    classes = mixture.sources[0].num_classes
    if classes is None:
        raise RunError(
            f"{which} need{s} labels, but {recipe.data[0].source} has none: set {them} to null, or use a source with classes"
        )
    labels = getattr(mixture.sources[0], "labels", None)
    if labels is not None and labels.ndim == 2:
        raise RunError(
            f"{which} need{s} one label for each image, but images of {recipe.data[0].source} have several: set {them} to null"
        )
    if classes > MOST_PROBED_CLASSES:
        raise RunError(
            f"{which} support{s} up to {MOST_PROBED_CLASSES} classes, but {recipe.data[0].source} has {classes}: set {them} to "
            "null, or use fewer classes"
        )
    width, wanted = method.backbone.width, recipe.evaluation
    if (bank := wanted.online_knn) is not None and classes > bank.images:
        raise RunError(
            f"evaluation.online_knn: a bank of {bank.images:,} images cannot have one of each of the {classes:,} classes of "
            f"{recipe.data[0].source}: raise evaluation.online_knn.images, or use fewer classes"
        )
    parts: list[OnlineEvaluation] = []
    if wanted.online_probe is not None:
        parts.append(OnlineProbe(width, classes, wanted.online_probe.learning_rate, device))
    if bank is not None:
        parts.append(
            OnlineKNN(width, classes, k=bank.k, temperature=bank.temperature, images=bank.images, device=device)
        )
    return SeveralOnlineEvaluations(parts) if len(parts) > 1 else parts[0]


def online_keys(recipe: Recipe) -> list[str]:
    """The keys of the online evaluations that the recipe asks for."""
    return [name for name in ("online_probe", "online_knn") if getattr(recipe.evaluation, name) is not None]
