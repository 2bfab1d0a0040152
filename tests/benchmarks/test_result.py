"""The table of a benchmark."""

from rich.console import Console

from wildfern.benchmarks.result import Benchmark


def test_slow_cases_do_not_print_as_zero():
    rows = [
        {"case": "a", "what": "slow", "rate": 0.1664, "ratio": None},
        {"case": "a", "what": "fast", "rate": 1234.5, "ratio": 7418.9},
    ]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(Benchmark("losses", "steps/s", "", rows).table())
    slow, fast = (line.split() for line in captured.get().splitlines() if "slow" in line or "fast" in line)
    assert "0.17" in slow
    assert "1,234" in fast
