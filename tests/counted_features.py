"""How many images a process extracts features of, counted in a file."""

from pathlib import Path


class CountedFeatures:
    """Counts the images of which features are extracted, in a file of this process."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.file = folder / f"rank_{rank}.txt"

    def __call__(self) -> None:
        from wildfern.ssl.evaluation import split_reader

        extract = split_reader.extract_features

        def counting(module, chunks, **settings):
            with self.file.open("a") as file:
                file.write(f"{sum(len(labels) for _, labels in chunks)}\n")
            return extract(module, chunks, **settings)

        split_reader.extract_features = counting
