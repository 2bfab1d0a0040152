"""The continuous parameters of a fractal as an image shows it, independent of the order of its maps."""

import numpy as np

from ..compiling import kernel
from ..counter_rng import fold64
from .fractal import SAMPLE_KEYS, draw_by_singular_values, workspace
from .jitter import largest_singular_value

#: The number of maps; the means of their larger and smaller singular values; the sum of their |det A|, the factors by which they
#: scale areas; and the share of the largest in that sum, with which the chaos game chooses that map.
NAMES = ("maps", "larger_singular_value", "smaller_singular_value", "area", "largest_area_share")


@kernel("parameters of fractals")
def fractal_parameters(sources: int):
    """Compute the parameters of samples of an `IFSStream`."""

    def of_samples(stream_key, indices, classes, settings, parameters):
        """Fill parameters (float64[N, 5]) with those of the systems of samples indices[i], after their jitter."""
        _ = sources
        work = workspace(1, 1)
        for i in range(indices.size):
            sample_key = fold64(fold64(stream_key, SAMPLE_KEYS), np.uint64(indices[i]))
            n = draw_by_singular_values(stream_key, indices[i] % classes, sample_key, settings, work)
            larger = smaller = area = largest = 0.0
            for m in range(n):
                a, b, c, d = work.system[m, 0, 0], work.system[m, 0, 1], work.system[m, 1, 0], work.system[m, 1, 1]
                determinant = abs(a * d - b * c)
                singular = largest_singular_value(a, b, c, d)
                larger += singular
                smaller += determinant / max(singular, 1e-12)
                area += determinant
                largest = max(largest, determinant)
            parameters[i, 0] = n
            parameters[i, 1], parameters[i, 2] = larger / n, smaller / n
            parameters[i, 3], parameters[i, 4] = area, largest / max(area, 1e-12)

    return of_samples
