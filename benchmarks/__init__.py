"""Speed, always as the ratio of two things run in turn in one process: `wildfern bench NAME`."""

from wildfern.benchmarks.result import Benchmark

NAMES = ("generators", "augmentation", "losses", "pipeline")


def run_benchmark(name: str, seconds: float, compiled: bool = False) -> Benchmark:
    """Run one of `NAMES`, each thing compared for about `seconds`; `compiled`: the pipeline by torch.compile too.

    Raises ValueError for another name, and where there is nothing to compile.
    """
    if compiled and name != "pipeline":
        raise ValueError(f"--compile is for the benchmark pipeline, not for {name}")
    if name == "generators":
        from wildfern.benchmarks.generators import run
    elif name == "augmentation":
        from wildfern.benchmarks.augmentation import run
    elif name == "losses":
        from wildfern.benchmarks.losses import run
    elif name == "pipeline":
        from wildfern.benchmarks.pipeline import run as run_pipeline

        return run_pipeline(seconds, compiled)
    else:
        raise ValueError(f"there is no benchmark {name!r}: choose one of {', '.join(NAMES)}")
    return run(seconds)


__all__ = ["NAMES", "Benchmark", "run_benchmark"]
