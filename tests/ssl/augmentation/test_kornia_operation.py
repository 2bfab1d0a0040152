import threading

import kornia.augmentation
import numpy as np
import pytest
import torch
from torch import Tensor

from wildfern.ssl.augmentation.kornia_operation import (
    KorniaOperation,
    build_operation,
    build_operations,
    operation_names,
)

SIZE, BATCH = 48, 12

# Arguments that kornia requires, and some that make images of a batch differ more than its defaults.
ARGUMENTS = {
    "CenterCrop": {"size": SIZE},
    "Denormalize": {"mean": 0.5, "std": 0.5},
    "LongestMaxSize": {"max_size": SIZE},
    "Normalize": {"mean": 0.5, "std": 0.5},
    "PadTo": {"size": [SIZE, SIZE]},
    "RandomAffine": {"degrees": 20, "translate": [0.1, 0.1], "shear": 5},
    "RandomClahe": {"clip_limit": [1.0, 60.0]},
    "RandomCrop": {"size": [SIZE, SIZE], "padding": 4},
    "RandomElasticTransform": {"kernel_size": [21, 21], "sigma": [5.0, 5.0]},
    "RandomFisheye": {"center_x": [-0.3, 0.3], "center_y": [-0.3, 0.3], "gamma": [0.9, 1.0]},
    "RandomGaussianBlur": {"kernel_size": [5, 5], "sigma": [0.1, 2.0]},
    "RandomMotionBlur": {"kernel_size": 5, "angle": 35.0, "direction": 0.5},
    "RandomResizedCrop": {"size": [SIZE, SIZE]},
    "RandomRotation": {"degrees": 30},
    "RandomRotation90": {"times": [0, 3]},
    "RandomShear": {"shear": 10},
    "RandomTranslate": {"translate_x": [-0.1, 0.2]},
    "Resize": {"size": SIZE},
    "SmallestMaxSize": {"max_size": SIZE},
}
USABLE = [name for name in operation_names() if name != "RandomDissolving"]


def images(n=BATCH, seed=0):
    smooth = torch.rand(n, 3, 6, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(smooth, (SIZE, SIZE), mode="bicubic").clamp(0, 1)


def shown(operation, x, positions, seed=3, step=5, view=1):
    return operation(x[positions], operation.draw(seed, step, positions, view, len(x)))


def test_many_operations_are_known():
    assert len(USABLE) > 40
    assert {"RandomErasing", "RandomPosterize", "RandomPlasmaShadow", "RandomThinPlateSpline"} < set(USABLE)
    assert not {"RandomMixUpV2", "RandomMosaic", "RandomAffine3D", "AugmentationBase2D"} & set(USABLE)


@pytest.mark.parametrize("name", USABLE)
def test_ranks_see_what_one_process_sees_and_the_global_generator_is_untouched(name):
    x, before = images(), torch.get_rng_state()
    operation = build_operation(name, ARGUMENTS.get(name, {}), SIZE)
    whole = shown(operation, x, np.arange(BATCH))
    assert whole.shape == x.shape
    for positions in (np.arange(5), np.arange(5, BATCH), np.array([7])):
        torch.testing.assert_close(shown(operation, x, positions), whole[positions], rtol=0, atol=1e-4)
    assert torch.equal(shown(operation, x, np.arange(BATCH)), whole)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "RandomErasing",
            "RandomPosterize",
            "RandomSharpness",
            "RandomAffine",
            "RandomPerspective",
            "RandomGaussianNoise",
        ),
        *("RandomRotation", "RandomPlasmaShadow", "RandomElasticTransform", "RandomBrightness", "ColorJitter"),
    ],
)
def test_every_key_gives_different_parameters(name):
    arguments = {"brightness": 0.5} if name == "ColorJitter" else ARGUMENTS.get(name, {})
    arguments = {**arguments, "p": 1.0}
    if name == "RandomBrightness":
        arguments["brightness"] = [0.5, 1.5]
    x, operation, positions = images(), build_operation(name, arguments, SIZE), np.arange(BATCH)
    one = shown(operation, x, positions)
    others = [shown(operation, x, positions, **change) for change in ({"seed": 4}, {"step": 6}, {"view": 0})]
    others.append(shown(build_operation(name, arguments, SIZE, place=1), x, positions))
    for other in others:
        assert ((other - one).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean() > 0.6
    alone = x[:1].expand_as(x)
    assert len({tuple(view.flatten().tolist()) for view in shown(operation, alone, positions)}) > 3


def test_parameters_have_the_distribution_of_kornia():
    operation = build_operation("RandomErasing", {"p": 0.3, "scale": [0.02, 0.3]}, SIZE)
    ours = operation.draw(0, 0, np.arange(4000), 0, 4000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = operation.module.forward_parameters((4000, 3, SIZE, SIZE))
    assert abs(ours["batch_prob"].mean() - 0.3) < 0.03
    for name in ("widths", "heights", "xs", "ys"):
        values = torch.cat([ours[name], theirs[name]]).sort().values
        shares = [torch.searchsorted(p[name].sort().values, values, right=True) / 4000 for p in (ours, theirs)]
        assert (shares[0] - shares[1]).abs().max() < 1.95 * (2 / 4000) ** 0.5, name


def test_other_drawing_threads_change_nothing():
    operation = build_operation("RandomAffine", {"degrees": 20}, SIZE)
    expected = operation.draw(0, 0, np.arange(64), 0, 64)
    stop = threading.Event()

    def draw_from_torch():
        while not stop.is_set():
            torch.rand(100)

    other = threading.Thread(target=draw_from_torch)
    other.start()
    try:
        for _ in range(50):
            drawn = operation.draw(0, 0, np.arange(64), 0, 64)
            assert all(torch.equal(drawn[name], value) for name, value in expected.items())
    finally:
        stop.set()
        other.join()


def test_pixel_noise_is_drawn_for_own_images_only():
    operation = build_operation("RandomGaussianNoise", {"std": 0.1, "p": 1.0}, SIZE)
    drawn = operation.draw(0, 0, np.arange(3), 0, 10**9)  # a batch whose noise no machine could hold
    assert drawn["gaussian_noise"].shape == (3, 3, SIZE, SIZE)
    together = build_operation("RandomGaussianNoise", {"std": 0.1, "p": 1.0, "same_on_batch": True}, SIZE)
    x = images()
    noise = shown(together, x, np.arange(4, BATCH)) - x[4:]
    torch.testing.assert_close(noise, noise[:1].expand_as(noise))


def test_an_empty_slice_and_moved_modules():
    operation = build_operation("RandomPlasmaShadow", {}, SIZE).to(torch.float64)
    assert operation.module.dtype == torch.float32
    assert shown(operation, images(), np.arange(0)).shape == (0, 3, SIZE, SIZE)


class DrawsWhenApplied(kornia.augmentation.IntensityAugmentationBase2D):
    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        return input + torch.rand(())


class DependsOnTheBatch(kornia.augmentation.IntensityAugmentationBase2D):
    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        return input - input.mean()


class CannotBeSeeded(kornia.augmentation.IntensityAugmentationBase2D):
    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"shift": torch.from_numpy(np.random.default_rng().random(batch_shape[0]))}

    def apply_transform(self, input: Tensor, params: dict, flags: dict, transform: Tensor | None = None) -> Tensor:
        return input


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (DrawsWhenApplied(), "draws random numbers while it is applied"),
        (DependsOnTheBatch(), "depends on the other images"),
        (CannotBeSeeded(), "cannot be seeded"),
    ],
)
def test_operations_that_cannot_be_sliced_are_refused(module, message):
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        KorniaOperation("Own", module, 16)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("RandomErase", {}, "unknown kornia augmentation 'RandomErase': did you mean 'RandomErasing'"),
        ("RandomMixUpV2", {}, "is not a 2D augmentation of single images"),
        ("RandomErasing", {"scales": [0.1, 0.2]}, "no argument 'scales': did you mean 'scale'"),
        ("RandomAffine", {}, "needs the argument 'degrees'"),
        ("RandomHue", {"hue": [-2, 2]}, r"RandomHue cannot be built with \{'hue': \[-2, 2\]\}"),
        ("RandomCrop", {"size": [32, 32]}, r"from \[3, 48, 48\] to \[3, 32, 32\]"),
        ("RandomGaussianBlur", {"kernel_size": [129, 129], "sigma": [1, 2]}, "images of 48 px"),
        ("RandomMotionBlur", {"kernel_size": [3, 9], "angle": 30, "direction": 0.5}, "depends on the other images"),
        ("RandomDissolving", {}, "downloads"),
        ("RandomErasing", {"p": 2.0}, r"p must be a probability in \[0, 1\], got 2.0"),
        ("RandomErasing", {"p": -0.1}, r"p must be a probability in \[0, 1\], got -0.1"),
        ("RandomErasing", {"p": float("nan")}, r"p must be a probability in \[0, 1\], got nan"),
        ("RandomErasing", {"p": ".nan"}, r"p must be a probability in \[0, 1\], got '.nan'"),
        ("RandomErasing", {"p": None}, r"p must be a probability in \[0, 1\], got None"),
        ("RandomHorizontalFlip", {"p_batch": float("nan")}, r"p_batch must be a probability in \[0, 1\], got nan"),
    ],
)
def test_errors_name_what_is_wrong(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_operation(name, arguments, SIZE)


def test_a_chain_from_a_recipe():
    chain = build_operations([{"operation": "RandomErasing", "p": 1.0}, {"operation": "RandomErasing", "p": 1.0}], SIZE)
    assert [operation.place for operation in chain] == [0, 1]
    one, other = (operation.draw(0, 0, np.arange(4), 0, 8)["xs"] for operation in chain)
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match=r"operation 0: .*'RandomErasing'.*; operation 2: `operation`") as caught:
        build_operations([{"operation": "RandomErase"}, {"operation": "RandomInvert"}, {"p": 0.5}], SIZE)
    assert "operation 1" not in str(caught.value)


def test_probabilities_of_a_chain_are_refused_together():
    with pytest.raises(
        ValueError, match=r"operation 0: .*p must be a probability.*; operation 1: .*p_batch must be a probability"
    ):
        build_operations(
            [{"operation": "RandomInvert", "p": 1.5}, {"operation": "RandomVerticalFlip", "p_batch": -1}], SIZE
        )


@pytest.mark.parametrize("name", ["RandomAffine", "RandomGaussianBlur"])
def test_autocast_changes_nothing(name):
    x, operation = images(), build_operation(name, {**ARGUMENTS[name], "p": 1.0}, SIZE)
    expected = shown(operation, x, np.arange(BATCH))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(shown(operation, x, np.arange(BATCH)), expected)


def test_positions_outside_the_batch():
    with pytest.raises(ValueError, match=r"6 … 8 are outside of a batch of 8"):
        build_operation("RandomInvert", {}, SIZE).draw(0, 0, np.arange(6, 9), 0, 8)
