"""Benchmarks, as ratios of two or more alternatives run in turn in one process: `wildfern bench NAME`."""

from wildfern.benchmarks.result import Benchmark

NAMES = ("generators", "augmentation", "losses", "curation", "evaluation", "pipeline")


def run_benchmark(name: str, seconds: float) -> Benchmark:
    """Run one of `NAMES` except pipeline, which needs the parts of a recipe; each alternative runs for about `seconds`.

    Raises ValueError for another name.
    """
    if name == "generators":
        from wildfern.benchmarks.generators import run
    elif name == "augmentation":
        from wildfern.benchmarks.augmentation import run
    elif name == "losses":
        from wildfern.benchmarks.losses import run
    elif name == "curation":
        from wildfern.benchmarks.curation import run
    elif name == "evaluation":
        from wildfern.benchmarks.evaluation import run
    else:
        raise ValueError(f"unknown benchmark {name!r}; choose one of {', '.join(NAMES)}")
    return run(seconds)


__all__ = ["NAMES", "Benchmark", "run_benchmark"]
