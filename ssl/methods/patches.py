"""Patches of images for methods that predict hidden ones with a vision transformer."""

from torch import Tensor

from wildfern.ssl.methods.batch import Batch
from wildfern.ssl.models.backbone import Backbone


def patch_grid(method: str, backbone: Backbone) -> tuple[int, tuple[int, int]]:
    """Patch size in pixels and grid (rows, columns) of a vision transformer. Raises ValueError for another network."""
    if backbone.patch_size is None or backbone.grid is None:
        raise ValueError(
            f"{method} needs a vision transformer, for instance vit_small_patch16_224; got {backbone.name}"
        )
    unused = [name for name, _ in backbone.named_parameters() if ".fc_norm." in name]
    if unused:
        raise ValueError(
            f"{method} trains tokens, before the normalization of their average (fc_norm), which it would leave untrained: "
            "set model.arguments.fc_norm to false"
        )
    return backbone.patch_size, backbone.grid


def images_of_patches(method: str, batch: Batch, backbone: Backbone) -> Tensor:
    """All views as images float[V·n, C, S, S]. Raises ValueError for views of several sizes or of another grid of patches."""
    if len(batch.views) > 1:
        raise ValueError(f"{method} takes views of one size: set views.local_count to 0, or views.name to simclr")
    patch, (rows, columns) = patch_grid(method, backbone)
    size = batch.views[0].shape[-1]
    if size % patch:
        raise ValueError(
            f"{method} needs views of whole patches: {backbone.name} has patches of {patch} px, so views.size must be a multiple "
            f"of {patch}, got {size}"
        )
    if (count := (size // patch) ** 2) != rows * columns:
        raise ValueError(
            f"views have {count} patches, but the backbone is made for {rows * columns}: set model.arguments.img_size to {size}"
        )
    return batch.views[0].flatten(0, 1)


def patchify(images: Tensor, patch: int) -> Tensor:
    """float[N, C, S, S] -> float[N, T, patch·patch·C]: the pixels of each patch, row by row."""
    n, channels, height, width = images.shape
    grid = images.reshape(n, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * channels)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Rows `indices` int64[N, K] of tokens float[N, T, D]: float[N, K, D]."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))
