"""Timing of two or more alternatives in turn, and the results as a table and as JSON."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from wildfern.printable import printable, printable_lines
from wildfern.ssl.tracking import environment

ROUNDS = 3


@dataclass(frozen=True)
class Benchmark:
    """Rows of {"case", "what", "rate", "ratio"}: `rate` in `unit`, `ratio` to the baseline of the case (None for it).

    A row may have "peak_bytes", the peak of its memory. A row with "skipped", the reason, has None as rate and ratio.
    """

    name: str
    unit: str
    words: str
    rows: list[dict]
    figures: dict[str, float] = field(default_factory=dict)  # further results, for `as_json`

    def table(self) -> Table:
        """The rows as a table for the terminal."""
        table = Table(
            title=Text(printable(f"{self.name}: {self.unit}")),
            caption=Text(printable_lines(self.words)),
            caption_justify="left",
            title_justify="left",
        )
        for heading in ("case", "what"):
            table.add_column(heading)
        with_memory = any("peak_bytes" in row for row in self.rows)
        for heading in (self.unit, "ratio", *["peak memory"] * with_memory):
            table.add_column(heading, justify="right")
        last = None
        for row in self.rows:
            if last not in (None, row["case"]):
                table.add_section()
            case = row["case"] if row["case"] != last else ""
            if "skipped" in row:
                what, figures = f"{row['what']} (skipped: {row['skipped']})", ["", ""]
            else:
                what, ratio = row["what"], "1" if row["ratio"] is None else f"{row['ratio']:.3g} ×"
                figures = [f"{row['rate']:,.0f}" if row["rate"] >= 10 else f"{row['rate']:.2g}", ratio]
            if with_memory:
                figures.append(f"{row['peak_bytes'] / 2**20:,.1f} MiB" if "peak_bytes" in row else "")
            table.add_row(*(Text(printable(words)) for words in (case, what)), *figures)
            last = row["case"]
        return table

    def as_json(self) -> dict:
        """The content of a file in `benchmarks/results/`: the rows with machine, versions and date."""
        rows = [{**r, "rate": _rounded(r["rate"]), "ratio": r["ratio"] and round(r["ratio"], 3)} for r in self.rows]
        return {
            "benchmark": self.name,
            "unit": self.unit,
            "words": self.words,
            "rows": rows,
            **({"figures": {name: round(value, 4) for name, value in self.figures.items()}} if self.figures else {}),
            "environment": environment(),
        }


def _rounded(rate: float | None) -> float | None:
    """One digit after the point, or two digits in all of small rates."""
    return rate if rate is None else round(rate, 1) if rate >= 1 else float(f"{rate:.2g}")


def compare(
    case: str,
    items: int,
    things: dict[str, Callable[[], object]],
    seconds: float,
    *,
    lead: int = 0,
    at_turn: Callable[[Callable[[], object]], None] = lambda thing: None,
    rounds: int | None = None,
    warm_up: bool = True,
) -> list[dict]:
    """Rows of one case. Each call processes `items`; the first alternative is the baseline.

    All are called once (`warm_up`), then in turn in `rounds` (`ROUNDS`) rounds of about seconds / rounds each; the best counts.
    Before a turn is timed, the alternative is called `lead` times (to use up prefetched work), then `at_turn` is called with it.
    """
    rounds = rounds or ROUNDS
    best = dict.fromkeys(things, 0.0)
    for call in things.values() if warm_up else ():
        call()
    for _ in range(rounds):
        for what, call in things.items():
            for _ in range(lead):
                call()
            at_turn(call)
            calls, began = 0, time.perf_counter()
            while not calls or time.perf_counter() - began < seconds / rounds:
                call()
                calls += 1
            best[what] = max(best[what], items * calls / (time.perf_counter() - began))
    baseline = next(iter(best.values()))
    return [
        {"case": case, "what": what, "rate": rate, "ratio": None if place == 0 else rate / baseline}
        for place, (what, rate) in enumerate(best.items())
    ]
