import math

import pytest
import torch

from wildfern.ssl.losses.domain_confusion import SOURCE, TARGET, domain_loss


@pytest.mark.parametrize("domain", [SOURCE, TARGET])
def test_each_image_has_the_mean_of_a_loop_over_its_logits(domain):
    logits = torch.randn(3, 1, 2, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found = domain_loss(logits, domain)
    for image in range(3):
        terms = []
        for value in logits[image].flatten().tolist():
            of_target = 1 / (1 + math.exp(-value))
            terms.append(-math.log(of_target if domain == TARGET else 1 - of_target))
        assert float(found[image]) == pytest.approx(sum(terms) / 8, abs=1e-12)
