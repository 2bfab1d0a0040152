"""The decision on each image, and every reason for it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from wildfern.ssl.curation.manifest import DECIDED, KEEP, REJECT, REVIEW
from wildfern.ssl.curation.policy import Action

ACTIONS = (KEEP, REVIEW, REJECT)  # from the mildest to the strictest


class Reason(NamedTuple):
    """Why an image is kept aside or left out: the rule of the policy, the measured value if there is one, and words."""

    rule: str
    action: str
    value: float | None = None
    detail: str = ""


class Verdicts:
    """For each of `count` images its reasons; the strictest action decides. `strictness` int8[count] indexes `ACTIONS`."""

    def __init__(self, count: int) -> None:
        self.strictness = np.zeros(count, np.int8)
        self.reasons: dict[int, list[Reason]] = {}

    def add(
        self,
        rule: str,
        action: Action,
        images: ArrayLike,
        values: Iterable[float] | None = None,
        details: Iterable[str] = (),
    ) -> None:
        """Apply a rule to these images int64[n], with a value and a text for each, if there are any. keep: does nothing."""
        places = np.asarray(images, np.int64)
        if action == KEEP or not len(places):
            return
        strictness = ACTIONS.index(action)
        self.strictness[places] = np.maximum(self.strictness[places], strictness)
        numbers = [None] * len(places) if values is None else [float(value) for value in values]
        texts = list(details) or [""] * len(places)
        for place, value, detail in zip(places.tolist(), numbers, texts, strict=True):
            self.reasons.setdefault(place, []).append(Reason(rule, action, value, detail))

    def replace(self, image: int, reason: Reason) -> None:
        """Let one reason decide on an image, whatever others there are; those of other rules are kept behind it."""
        self.strictness[image] = ACTIONS.index(reason.action)
        others = [one for one in self.reasons.get(image, []) if one.rule != reason.rule]
        self.reasons[image] = [reason, *others]

    @property
    def kept(self) -> NDArray[np.bool_]:
        return self.strictness == 0

    @property
    def rejected(self) -> NDArray[np.bool_]:
        return self.strictness == ACTIONS.index(REJECT)

    def columns(self, start: int, count: int) -> dict[str, pa.Array]:
        """The columns `decision` and `reasons` of the manifest for `count` images from `start`."""
        kinds = {column.name: column.type for column in DECIDED}
        decisions = [ACTIONS[strictness] for strictness in self.strictness[start : start + count].tolist()]
        reasons = [[reason._asdict() for reason in self.reasons.get(start + n, ())] for n in range(len(decisions))]
        return {
            "decision": pa.array(decisions, pa.string()).dictionary_encode().cast(kinds["decision"]),
            "reasons": pa.array(reasons, kinds["reasons"]),
        }
