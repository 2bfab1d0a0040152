"""Patches that a student does not see and a teacher does (iBOT, DINOv2): masks, and a fixed number of places for them."""

from typing import NamedTuple

from torch import Tensor

from wildfern.ssl.methods.batch import Batch
from wildfern.ssl.methods.mae import take
from wildfern.ssl.methods.patch_masks import block_draws, block_masks
from wildfern.ssl.models.backbone import Backbone


class MaskedPatches(NamedTuple):
    """Masks of N images, of which each has another number of masked patches, in tensors of fixed shape."""

    mask: Tensor  # bool[N, T], True where masked
    places: Tensor  # int64[N, K]: the masked patches first, then others; K is the largest number possible
    weights: Tensor  # float32[N, K], 1 at masked patches and 0 at others

    def take(self, patches: Tensor) -> Tensor:
        """float[N, T, D] -> float[N, K, D]."""
        return take(patches, self.places)


def check_patches(backbone: Backbone, method: str) -> None:
    """Raise ValueError for a backbone without patches."""
    if backbone.patch_size is None:
        raise ValueError(
            f"{method} needs a vision transformer, for instance vit_small_patch16_224; got {backbone.name}"
        )


def masked_patches(
    batch: Batch, name: str, patch: int, probability: float, ratio: tuple[float, float], aspect: float = 0.3
) -> MaskedPatches:
    """Block masks of the V · n images of the first group of views, as in `batch.views[0].flatten(0, 1)`.

    A view is masked with `probability`; of its patches of `patch` px a share drawn uniformly from `ratio` is masked, at least
    one. Masks follow from seed, step, position in the global batch and `name`.
    """
    views, size = batch.views[0].shape[0], batch.views[0].shape[-1]
    if size % patch:
        raise ValueError(
            f"views must be whole patches of {patch} px, so views.size must be a multiple of it, got {size}"
        )
    grid = (size // patch, size // patch)
    patches, most = grid[0] * grid[1], max(1, int(ratio[1] * grid[0] * grid[1]))
    chosen = batch.uniform(f"{name} ratio", views, 2).transpose(0, 1).flatten(0, 1)
    draws = batch.uniform(f"{name} mask", views, block_draws(grid)).transpose(0, 1).flatten(0, 1)
    shares = ratio[0] + (ratio[1] - ratio[0]) * chosen[:, 1]
    counts = (shares * patches).long().clamp(1, most) * (chosen[:, 0] < probability)
    mask = block_masks(draws, grid, counts, aspect=aspect)
    places = mask.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return MaskedPatches(mask, places, mask.gather(1, places).float())
