"""How far long work is: the part that is being done, and how much of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from .formatting import duration

KNOWN_AFTER = 2.0  # seconds of counting, before which the time left is a guess
TOLD_AFTER = 5.0  # seconds, after which a line says for how long the part has been going on


@dataclass(frozen=True)
class _State:
    """Replaced as a whole, so that a display in another thread never sees half of it."""

    text: str
    began: float
    detail: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""
    since: float = 0.0  # when the counting began, and at which number
    first: float = 0
    now: float = 0.0  # of the last count


class Progress:
    """Progress of long work, for a display: a `part` that begins, a `detail` of it, and a `count` within it.

    An update costs a few microseconds: nothing is formatted before a display reads `line()`, in a thread of its own. `show` gets
    the line when a part begins, and while it is counted or its detail changes after at least `every` seconds.
    """

    def __init__(
        self,
        show: Callable[[str], None] | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show, self._every, self._clock = show, every, clock
        self._state = _State("", clock())
        self._shown = self._state.began

    def part(self, text: str) -> None:
        """Begin a part, such as "digits: features of train"; empty for none."""
        self._state = _State(text, self._clock())
        if self._show is not None and text:
            self._tell(self._state.began)

    def detail(self, text: str) -> None:
        """What of the part is being done, such as "strength 3 of 7"; a count ends."""
        before = self._state
        self._state = _State(before.text, before.began, text)
        if self._show is not None and (now := self._clock()) - self._shown >= self._every:
            self._tell(now)

    def count(self, done: float, total: float, unit: str, detail: str | None = None) -> None:
        """`done` of `total` units, such as images; the time left follows from the speed since the first count of this unit."""
        before, now = self._state, self._clock()
        anew = (before.total, before.unit) != (total, unit) or done < before.done
        self._state = _State(
            before.text,
            before.began,
            before.detail if detail is None else detail,
            done,
            total,
            unit,
            now if anew else before.since,
            done if anew else before.first,
            now,
        )
        if self._show is not None and now - self._shown >= self._every:
            self._tell(now)

    @property
    def age(self) -> float:
        """Seconds since the part began."""
        return self._clock() - self._state.began

    def line(self) -> str:
        """The state in one line: "digits: features of train: 3,200/10,000 images, left 0:12"; empty before any part."""
        state, now = self._state, self._clock()
        if not state.text:
            return ""
        words = [state.detail] if state.detail else []
        if state.total:
            words.append(f"{int(state.done):,}/{int(state.total):,} {state.unit}")
        counted, spent = state.done - state.first, state.now - state.since
        if counted > 0 and spent >= KNOWN_AFTER and state.done < state.total:
            left = spent / counted * (state.total - state.done) - (now - state.now)
            words.append(f"left {duration(max(left, 0))}")
        line = f"{state.text}: {', '.join(words)}" if words else state.text
        known = counted > 0 and spent >= KNOWN_AFTER
        return line if known or now - state.began < TOLD_AFTER else f"{line}, {duration(now - state.began)} so far"

    def _tell(self, now: float) -> None:
        self._shown = now
        self._show(self.line())  # type: ignore[misc]


SILENT = Progress()  # for work that nobody watches


def progress_of(announce: Callable[[str], None] | Progress) -> Progress:
    """A `Progress` as it is; a function gets its lines."""
    return announce if isinstance(announce, Progress) else Progress(announce)
