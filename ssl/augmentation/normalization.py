"""Mean and standard deviation with which views are normalized, one number for each channel; ImageNet's by default."""

from collections.abc import Sequence

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, timm's default

Numbers = tuple[float, ...]


def checked_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[Numbers, Numbers]:
    """Both, for images in [0, 1]; ImageNet's if neither is given. Raises ValueError."""
    if mean is None and std is None:
        return MEAN, STD
    if mean is None or std is None:
        raise ValueError(f"{'mean' if mean is None else 'std'} is missing: set both mean and std, or neither")
    if not len(mean) or len(mean) != len(std):
        raise ValueError(f"mean has {len(mean)} numbers and std {len(std)}; both need one for each channel")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise ValueError(
            f"mean must be in [0, 1] and std above 0 and up to 1, for images in [0, 1]; got {list(mean)} and {list(std)}"
        )
    return tuple(float(value) for value in mean), tuple(float(value) for value in std)
