"""Speed, always as the ratio of two things run in turn in one process: `wildfern bench NAME`."""

from wildfern.benchmarks.result import Benchmark

NAMES = ("generators", "augmentation", "losses", "pipeline")


def run_benchmark(name: str, seconds: float) -> Benchmark:
    """Run one of `NAMES` but pipeline, which wants the parts of a recipe; each thing compared for about `seconds`.

    Raises ValueError for another name.
    """
    if name == "generators":
        from wildfern.benchmarks.generators import run
    elif name == "augmentation":
        from wildfern.benchmarks.augmentation import run
    elif name == "losses":
        from wildfern.benchmarks.losses import run
    else:
        raise ValueError(f"there is no benchmark {name!r}: choose one of {', '.join(NAMES)}")
    return run(seconds)


__all__ = ["NAMES", "Benchmark", "run_benchmark"]
