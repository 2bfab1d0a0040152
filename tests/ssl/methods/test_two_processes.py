"""Two processes with half the images each have the loss and the gradient of one process with all of them."""

import pytest
import torch
from forked_ranks import two_ranks_of
from two_ranks import ARGUMENTS, DTYPES, ERRORS, build, plain_step, step, worker


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return two_ranks_of(worker, tmp_path_factory.mktemp("ranks"))


# Batch normalization of eight small images amplifies rounding: the two orders of summation differ by up to 63 units of
# least precision in float64 (1.4e-14) and by 92 in float32 (1.1e-5), in the gradient of the convolution under
# cacr_momentum. A bug would be equally large in float64, where only 1.1e-13 is allowed.
UNITS = 512


def different(found, expected, relative):
    """Names of tensors that differ by more than `relative` of their norm."""
    assert found.keys() == expected.keys()
    whole = torch.stack([v.norm() for k, v in expected.items() if k.startswith("gradient")]).norm()
    wrong = []
    for name, value in expected.items():
        scale = whole if name.startswith("gradient") else 1.0
        # A bias before batch normalization has no gradient but rounding, a mean after it is 0 but for rounding.
        length = scale if value.norm() < 1e-5 * scale else value.norm()
        if (found[name] - value).norm() > relative * length:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_loss_and_gradients_equal_the_plain_formula_in_one_process(name, kind, two_processes):
    plain, rounding = plain_step(name, DTYPES[kind]), UNITS * torch.finfo(DTYPES[kind]).eps
    assert plain["loss"].isfinite()
    assert not different(step(name, DTYPES[kind], 0, 1), plain, rounding)
    for found in two_processes:
        assert not different(found[f"{name} {kind}"], plain, rounding)


@pytest.mark.parametrize(("error", "name"), [(error, name) for error, (names, _) in ERRORS.items() for name in names])
def test_typical_errors_would_be_detected(error, name, two_processes):
    plain = plain_step(name, torch.float64)
    assert any(different(found[f"{error}: {name}"], plain, 1e-2) for found in two_processes)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_optimized_parameter_gets_a_gradient(name):
    gradients = step(name, torch.float64, 0, 1)
    method, _, _ = build(name, torch.float64)
    assert {f"gradient of {n}" for n, p in method.named_parameters() if p.requires_grad} <= gradients.keys()
    # biases before batch normalization have none, all other parameters must have one
    still = {k for k, v in gradients.items() if k.startswith("gradient") and v.abs().max() < 1e-12}
    assert not {k for k in still if "weight" in k}
