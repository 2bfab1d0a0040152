"""Methods whose loss compares the images of a batch with each other: first embeddings of each image, then one loss for all.

Ranks share the work of a comparison of N images with N others: each has the queries of some images (`own_images`) and the
embeddings of all.
"""

import torch
from torch import Tensor

from wildfern.ssl.methods.base import Method
from wildfern.ssl.methods.batch import (
    Batch,
    Embedded,
    Output,
    checked_by_image,
    checked_embeddings,
    checked_output,
)
from wildfern.ssl.methods.gather import all_gather_embeddings


class ComparingMethod(Method):
    """A method that defines `embed` and `compare` in place of `forward`.

    `training.accumulation` then keeps the loss of the whole batch. With `forward` each micro-batch would have a loss of its own,
    with its own images as the only negatives.
    """

    def prepare(self, step: int) -> None:
        """Compute statistics of the global batch that `embed` needs, from what `targets` has kept.

        Runs once per step, on every rank, when `targets` has run for all its micro-batches and before any `embed`; without
        gradient. Does nothing by default.
        """

    def embed(self, batch: Batch) -> Embedded:
        """The embeddings of this rank's images, with gradient.

        Runs twice for each micro-batch with accumulation, so it must not update buffers other than batch statistics.
        """
        raise NotImplementedError(f"{type(self).__name__}.embed() must return an Embedded")

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """What `compare` needs besides, without gradient, [V, n, ...] by name: for instance keys of a teacher, or labels."""
        return {}

    def gather(self, name: str, x: Tensor) -> Tensor:
        """What `compare` gets of the embeddings or targets `name`, [V, n, ...] of this rank: those of all ranks, in global order.

        Override it where `compare` needs only this rank's images, whose mean loss it then returns: to return `x` unchanged.
        """
        return all_gather_embeddings(x)

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        """Loss and metrics from the embeddings and targets of the global batch by name, [V, N, ...] in global order.

        Their means over ranks are those of the global batch: the whole loss on every rank, or that of the queries of
        `own_images(N)`, times the number of ranks. Runs once per step, on every rank. Uses no trained parameters; may update
        buffers, for instance a queue.
        """
        raise NotImplementedError(f"{type(self).__name__}.compare() must return an Output")

    def forward(self, batch: Batch) -> Output:
        """`targets`, `prepare`, `embed` and `compare`, with the embeddings of all ranks."""
        targets = self.checked_targets(batch)
        with torch.no_grad():
            self.prepare(batch.step)
        embedded = self.checked_embed(batch)
        whole = {name: self.gather(name, x) for name, x in (embedded.embeddings | targets).items()}
        output = self.checked_compare(whole, batch.step)
        return Output(output.loss, output.metrics, embedded.features, output.embeddings)

    def checked_embed(self, batch: Batch) -> Embedded:
        """`embed`; like the next two, raises ValueError for a result that breaks the interface."""
        return checked_embeddings(self.embed(batch), f"{type(self).__name__}.embed()", batch)

    def checked_targets(self, batch: Batch) -> dict[str, Tensor]:
        """`targets`."""
        return checked_by_image(self.targets(batch), f"{type(self).__name__}.targets()", batch)

    def checked_compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        """`compare`."""
        return checked_output(self.compare(embeddings, step), f"{type(self).__name__}.compare()", None)


def compares_whole_batch(method: Method) -> bool:
    """Whether micro-batches of the method can share one loss: its `forward` is that of `ComparingMethod`."""
    return isinstance(method, ComparingMethod) and type(method).forward is ComparingMethod.forward


def prepares(method: ComparingMethod) -> bool:
    """Whether the method has statistics of the global batch to compute before `embed`."""
    return type(method).prepare is not ComparingMethod.prepare
