"""The manifest of each curated folder that a run trains on, fixed when it starts: a later scan does not change its images."""

from wildfern.launch.cluster.distributed import DistributedContext
from wildfern.recipes import Recipe
from wildfern.recipes.schema import DataEntry
from wildfern.ssl.curation.manifest import Manifest
from wildfern.ssl.data.paths import existing_folder

SCHEME = "curated"


def pinned_manifests(recipe: Recipe, context: DistributedContext, resumed: Recipe | None) -> Recipe:
    """The recipe with the argument `manifest` of curated sources set, the same on every rank.

    It is that of the run being resumed (`resumed`), else the present one. Raises DataError for one that cannot be read.
    """
    if not any(entry.scheme == SCHEME and entry.arguments.get("manifest") is None for entry in recipe.data):
        return recipe
    former = [] if resumed is None else resumed.data
    digests = context.broadcast_from_main(lambda: [_manifest(n, entry, former) for n, entry in enumerate(recipe.data)])
    entries = [
        entry if digest is None else entry.model_copy(update={"arguments": entry.arguments | {"manifest": digest}})
        for entry, digest in zip(recipe.data, digests, strict=True)
    ]
    return recipe.model_copy(update={"data": entries})


def _manifest(number: int, entry: DataEntry, former: list[DataEntry]) -> str | None:
    if entry.scheme != SCHEME or entry.arguments.get("manifest") is not None:
        return None
    if number < len(former) and former[number].source == entry.source:
        known: str | None = former[number].arguments.get("manifest")
        return known
    manifest = Manifest(existing_folder(entry.source.partition(":")[2]))
    manifest.close()
    return manifest.sha256[:16]
