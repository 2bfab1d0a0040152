"""Gradients of a step that is computed in several micro-batches (gradient accumulation): with a loss for each, or one for all.

One loss for all needs two passes: embeddings of all micro-batches without gradient, then the loss and its gradient with respect
to them, then each micro-batch again with that gradient (GradCache; Gao et al., 2021, "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup", section 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from wildfern.generators.counter_rng import key
from wildfern.ssl.data import Loader
from wildfern.ssl.methods.batch import Batch, Metrics, Output
from wildfern.ssl.methods.comparing import ComparingMethod, prepares
from wildfern.ssl.training.batch_reader import BatchReader, MicroBatch
from wildfern.ssl.training.engine import Engine
from wildfern.ssl.training.finite import restore_buffers, snapshot_buffers

Embeddings = dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Results of one micro-batch after its backward pass; the loss is detached, features and labels are this rank's.

    `embeddings` are this rank's, or those of the global batch where the loss is.
    """

    loss: Tensor
    metrics: Metrics
    features: Tensor | None
    embeddings: Tensor | None
    labels: Tensor | None


def separate_losses(
    engine: Engine, reader: BatchReader, loader: Loader[MicroBatch], parts: int, skip_nonfinite: bool
) -> Iterator[Part]:
    """Forward and backward pass of each micro-batch of a step: the gradient is that of the mean of their losses."""
    for _ in range(parts):
        batch = reader.batch(next(loader))
        engine.method.needs.check_batch(batch)
        output = engine(batch)
        engine.backward(output.loss * _one_if_finite(output.loss.detach()) if skip_nonfinite else output.loss)
        yield Part(output.loss.detach(), output.metrics, output.features, output.embeddings, batch.labels)


def shared_loss(
    engine: Engine, reader: BatchReader, loader: Loader[MicroBatch], parts: int, skip_nonfinite: bool
) -> Iterator[Part]:
    """The same with the loss of the whole batch, as `ComparingMethod.compare` returns it, which every `Part` has.

    Prepared images of the step stay in host memory, since views are made again for the second pass. Random numbers of the
    networks follow from seed, step, micro-batch and rank, in both passes alike. Batch normalization has the statistics of a
    micro-batch and updates its running statistics once for each.
    """
    method = cast(ComparingMethod, engine.method)
    prepared = [next(loader) for _ in range(parts)]
    own: list[Embeddings] = []
    targets: list[Embeddings] = []
    if prepares(method):
        targets = _prepared(engine, method, reader, prepared)
    for part in prepared:
        batch = reader.batch(part)
        method.needs.check_batch(batch)
        _seed_networks(reader.seed, part, engine.rank)
        with torch.no_grad():
            embeddings, others = engine.run(lambda batch=batch: _without_gradient(method, batch))
        own.append({name: x.detach().requires_grad_(x.is_floating_point()) for name, x in embeddings.items()})
        if not prepares(method):
            targets.append(others)
    del batch
    output, gradients = _compare(engine, own, targets, prepared[0].step)
    for part, gradient in zip(prepared, gradients, strict=True):
        batch = reader.batch(part)
        _seed_networks(reader.seed, part, engine.rank)
        embeddings, features = engine.run(lambda batch=batch: _with_gradient(method, batch))
        products = [
            (x * gradient[name]).sum() for name, x in embeddings.items() if name in gradient and x.requires_grad
        ]
        # Engines divide the loss of each micro-batch by their number.
        product = parts * sum(products)
        engine.backward(product * _one_if_finite(output.loss) if skip_nonfinite else product)
        yield Part(output.loss, output.metrics, features, output.embeddings, batch.labels)


def _prepared(
    engine: Engine, method: ComparingMethod, reader: BatchReader, parts: list[MicroBatch]
) -> list[Embeddings]:
    """The targets of all micro-batches, then `prepare`: a pass of its own, for which views are made once more."""
    targets = []
    with torch.no_grad():
        for part in parts:
            batch = reader.batch(part)
            method.needs.check_batch(batch)
            _seed_networks(reader.seed, part, engine.rank)
            targets.append(engine.run(lambda batch=batch: method.checked_targets(batch)))
        with torch.autocast(engine.device.type, torch.bfloat16, enabled=engine.precision == "bf16"):
            method.prepare(parts[0].step)
    return targets


def _without_gradient(method: ComparingMethod, batch: Batch) -> tuple[Embeddings, Embeddings]:
    """Embeddings and targets; batch statistics are updated by the second pass only."""
    targets = {} if prepares(method) else method.checked_targets(batch)  # otherwise they were needed before
    before = snapshot_buffers([method])
    embeddings = method.checked_embed(batch).embeddings
    restore_buffers(before)
    return embeddings, targets


def _with_gradient(method: ComparingMethod, batch: Batch) -> tuple[Embeddings, Tensor | None]:
    embedded = method.checked_embed(batch)
    return embedded.embeddings, embedded.features


def _compare(
    engine: Engine, own: list[Embeddings], targets: list[Embeddings], step: int
) -> tuple[Output, list[Embeddings]]:
    """The loss of the whole batch, detached, and its gradient with respect to this rank's embeddings in each micro-batch.

    The loss is that of `ComparingMethod.compare` on this rank; the gradient is that of the sum of all ranks' losses. Raises
    ValueError if the loss depends on parameters, which would get no gradient.
    """
    method = cast(ComparingMethod, engine.method)
    whole = {
        name: torch.cat([method.gather(name, tensors[name]) for tensors in group], dim=1)
        for group in (own, targets)
        for name in group[0]
    }
    with torch.autocast(engine.device.type, torch.bfloat16, enabled=engine.precision == "bf16"):
        output = method.checked_compare(whole, step)
    places = [(part, name) for part, tensors in enumerate(own) for name, x in tensors.items() if x.requires_grad]
    trained = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    leaves = [own[part][name] for part, name in places] + [p for _, p in trained]
    found = torch.autograd.grad(output.loss, leaves, allow_unused=True)
    for (name, _), gradient in zip(trained, found[len(places) :], strict=True):
        if gradient is not None:
            raise ValueError(
                f"{type(method).__name__}.compare() uses the parameter {name}, which would get no gradient with "
                "training.accumulation: use it in embed()"
            )
    gradients: list[Embeddings] = [{} for _ in own]
    for (part, name), gradient in zip(places, found, strict=False):
        if gradient is not None:
            gradients[part][name] = gradient
    return Output(output.loss.detach(), output.metrics, embeddings=output.embeddings), gradients


def _seed_networks(seed: int, part: MicroBatch, rank: int) -> None:
    """Dropout and stochastic depth of a micro-batch: the same numbers in both passes."""
    torch.manual_seed(key("model", seed, part.step, rank, part.part))


def _one_if_finite(loss: Tensor) -> Tensor:
    """1, or NaN for a loss that is not finite: as a factor it makes the gradient NaN too, so that the step is skipped."""
    return loss - loss + 1
