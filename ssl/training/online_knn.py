"""Nearest neighbors in a bank of the latest training images (Wu et al., 2018, section 3.4), to monitor features in training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from wildfern.ssl.evaluation.protocols.neighbor_search import most_queries, top
from wildfern.ssl.evaluation.protocols.neighbor_votes import check_votes, vote_totals, votes_of
from wildfern.ssl.evaluation.unit_rows import unit_rows
from wildfern.ssl.methods.gather import all_gather_embeddings, world_size
from wildfern.ssl.training.fitting_state import StateMismatch
from wildfern.ssl.training.online_evaluation import OnlineEvaluation, checked_observation


class OnlineKNN(OnlineEvaluation):
    """Accuracy of the votes of the k nearest images in a bank of the latest `images` labeled ones.

    A neighbor of cosine similarity s votes with exp(s / temperature). Of equally near images those at earlier places of the bank
    vote, and the lowest label wins a tie. The images of a step are classified by the bank of the steps before, then replace its
    oldest ones. Nothing is counted while it is empty; a bank smaller than k votes as a whole.

    The bank is whole on every rank. After each step, W ranks have the same images at the same places as one rank, in the order of
    the global batch, and the same counts, both up to the rounding of features. All ranks need equally many images in a
    micro-batch, labeled or not. On a GPU, `step` waits for the device. Raises ValueError for impossible settings.
    """

    root, absent = "online_knn/", "no online kNN: its bank starts empty"

    def __init__(
        self, features: int, classes: int, *, k: int, temperature: float, images: int, device: torch.device
    ) -> None:
        super().__init__()
        check_votes((k,), (temperature,), "exponential")
        if classes < 2:
            raise ValueError(f"online kNN needs at least 2 classes, got {classes}")
        if images < k:
            raise ValueError(f"the bank of online kNN must hold at least k={k} images, got images={images}")
        self.classes, self.k, self.temperature = classes, k, temperature
        self.register_buffer("bank", torch.zeros(images, features, device=device))  # unit rows
        self.register_buffer("labels", torch.full((images,), -1, device=device))
        self.register_buffer("added", torch.zeros(1, dtype=torch.int64, device=device))  # since the first step
        self.register_buffer("steps", torch.zeros(1, device=device))
        # Correct predictions and all predictions since `take_accuracy`.
        self.register_buffer("right", torch.zeros(2, dtype=torch.int64, device=device))
        self._observed: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def observe(self, features: Tensor | None, labels: Tensor | None) -> None:
        rows, labels = checked_observation(features, labels, self.classes, "online kNN")
        # NaN, which no search can order, becomes zero: such an image has similarity 0 to all others.
        self._observed.append((unit_rows(rows).nan_to_num(), labels))

    @torch.no_grad()
    def step(self) -> None:
        observed, self._observed = self._observed, []
        counts = sum((self._counts(rows, labels) for rows, labels in observed), torch.zeros_like(self.right))
        if world_size() > 1:
            torch.distributed.all_reduce(counts)
        self.right += counts
        for rows, labels in observed:
            self._add(all_gather_embeddings(rows[None])[0], all_gather_embeddings(labels[None, :, None])[0, :, 0])
        self.steps += 1

    def _counts(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Correct predictions and all predictions of this rank's images: int64[2]."""
        bank, known = self.bank[: int(self.added)], labels >= 0
        counts = torch.zeros_like(self.right)
        if not len(bank):
            return counts
        chunk = most_queries(len(bank), self.classes)
        for queries, truth in zip(rows[known].split(chunk), labels[known].split(chunk), strict=True):
            similarity, places = top(queries @ bank.T, self.k)
            votes = votes_of(similarity, self.temperature, "exponential")
            (totals,) = vote_totals(votes, places, self.labels, self.classes, (self.k,))
            counts[0] += (totals.argmax(dim=1) == truth).sum()
            counts[1] += len(truth)
        return counts

    def _add(self, rows: Tensor, labels: Tensor) -> None:
        """Replace the oldest images of the bank by the labeled ones of these."""
        known, images = labels >= 0, len(self.bank)
        total = int(self.added) + int(known.sum())
        rows, labels = rows[known][-images:], labels[known][-images:]
        places = torch.arange(total - len(rows), total, device=rows.device) % images
        self.bank[places], self.labels[places] = rows, labels
        self.added.fill_(total)

    def forget(self) -> None:
        self._observed = []

    def take_accuracy(self) -> dict[str, float]:
        right, answers = self.right.tolist()
        self.right.zero_()
        return {"online_knn_accuracy": right / answers} if answers else {}

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        added = int(state["added"])
        labels, bank = state["labels"][: max(added, 0)], state["bank"]
        if not 0 <= added < 2**53 or not bank.isfinite().all() or ((labels < 0) | (labels >= self.classes)).any():
            raise StateMismatch(
                f"the bank of online kNN does not hold finite features of images of {self.classes} classes"
            )
