import math

import pytest
import torch

from wildfern.ssl.losses.weighted_cross_entropy import weighted_cross_entropy


@pytest.mark.parametrize(("foreground", "background"), [(1.0, 0.1), (12.0, 0.1), (1.0, 1.0)])
def test_each_image_has_the_mean_of_a_loop_over_its_pixels(foreground, background):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64) * 3
    target = (torch.rand(3, 4, 5, generator=generator) > 0.6).double()
    found = weighted_cross_entropy(logits, target, foreground, background)
    for image in range(3):
        total = 0.0
        for row in range(4):
            for column in range(5):
                p = 1 / (1 + math.exp(-float(logits[image, row, column])))
                inside = bool(target[image, row, column])
                total += -foreground * math.log(p) if inside else -background * math.log(1 - p)
        assert float(found[image]) == pytest.approx(total / 20, abs=1e-12)
