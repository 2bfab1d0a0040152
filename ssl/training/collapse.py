"""Warnings that representations collapse: all images get the same embedding, or embeddings vary along a single direction."""

from collections.abc import Mapping

from wildfern.ssl.methods.base import Method

SIGNS = ("loss", "rank_me", "feature_std", "uniformity")
LINES = 3  # logged in a row, before a warning
EARLY = (0.1, 100)  # share of the run and number of steps in which an untrained network may look collapsed
NEAR = 0.005  # relative distance of a loss from its value at collapse
LEAST_RANK = 1.5  # RankMe: 1 if all features are multiples of one vector
LEAST_STD = 0.01  # 0 if all features point in one direction, 1 if they are uniform
MOST_UNIFORMITY = -0.05  # 0 if all embeddings are equal


class CollapseWatch:
    """Reads the logged metrics of a run, and says once for each sign of collapse that it stays."""

    def __init__(self, method: Method, batch_size: int, total_steps: int) -> None:
        self._loss = method.collapsed_loss(batch_size)
        self._advice = method.if_collapsed
        share, steps = EARLY
        self._first = max(round(share * total_steps), steps)
        self._seen: dict[str, int] = {}

    def messages(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """Warnings after global step `step`, of which there are at most one for each sign in a run."""
        if step < self._first:
            return []
        found = []
        for sign, text in self._signs(metrics).items():
            self._seen[sign] = self._seen.get(sign, 0) + 1 if text else 0
            if text and self._seen[sign] == LINES:
                found.append(f"step {step + 1}: {text}. The representations may have collapsed; try {self._advice}")
                self._seen[sign] = -(2**62)  # said
        return found

    def _signs(self, metrics: Mapping[str, float]) -> dict[str, str | None]:
        loss, rank, std, uniformity = (metrics.get(name) for name in SIGNS)
        signs: dict[str, str | None] = dict.fromkeys(SIGNS)
        collapsed = self._loss
        if loss is not None and collapsed is not None and abs(loss - collapsed) < NEAR * max(1.0, abs(collapsed)):
            signs["loss"] = f"the loss stays at {loss:.4g}, its value when the outputs for all images are equal"
        if rank is not None and rank < LEAST_RANK:
            signs["rank_me"] = f"rank_me is {rank:.2f}: features vary along one direction only"
        if std is not None and std < LEAST_STD:
            signs["feature_std"] = f"feature_std is {std:.4f}: the features of all images point in one direction"
        if uniformity is not None and uniformity > MOST_UNIFORMITY:
            signs["uniformity"] = f"uniformity is {uniformity:.3f}: the embeddings of all images are nearly equal"
        return signs
