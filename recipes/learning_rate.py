"""The learning rate of a batch size, from one that is stated for 256 images."""

IMAGES = 256  # of the global batch that a base learning rate is for
RATE_KEYS = ("base_learning_rate", "scaling")  # in place of `learning_rate` in the section `optimizer`


def scaled_rate(base: float, batch_size: int, scaling: str = "linear") -> float:
    """The learning rate for a global batch of `batch_size` images: base · B/256, or base · √(B/256) with `sqrt`.

    Linear: Goyal et al., 2017, section 2.1. Square root: Krizhevsky, 2014, section 5. Exact for B a power of two, if linear.
    """
    ratio = batch_size / IMAGES
    return base * (ratio if scaling == "linear" else ratio**0.5)
