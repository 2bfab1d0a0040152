import numpy as np
import pytest
import torch
from kornia.augmentation import AugmentationSequential

from wildfern.ssl.augmentation.color import grayscale
from wildfern.ssl.augmentation.local_intensity_order import LocalIntensityOrder, local_intensity_order


def plain_loops(gray):
    height, width = gray.shape
    codes = np.zeros((4, height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            for distance in range(1, 9):
                for channel, (v, u, bit) in enumerate(
                    [
                        (y + distance, x, distance - 1),
                        (y - distance, x, 8 - distance),
                        (y, x + distance, distance - 1),
                        (y, x - distance, 8 - distance),
                    ]
                ):
                    neighbor = gray[v, u] if 0 <= v < height and 0 <= u < width else 0
                    codes[channel, y, x] |= int(gray[y, x] > neighbor) << bit
    return codes


@pytest.mark.parametrize("i", [0, 1])
def test_reference_figures(shared, i):
    figures = np.load(shared / "golden" / "freecos.npz")
    gray = torch.from_numpy(figures[f"liot{i}_gray"])
    for given in (gray[None, None], gray[None], gray[None].float()):
        np.testing.assert_array_equal(local_intensity_order(given)[0], figures[f"liot{i}_codes"])


@pytest.mark.parametrize(("height", "width"), [(20, 23), (5, 19), (1, 1)])  # some lower than the eight neighbors reach
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_plain_loops(height, width, dtype):
    # few values, so that many neighbors are equal
    gray = torch.randint(0, 6, (3, height, width), generator=torch.Generator().manual_seed(0)).to(dtype)
    codes = local_intensity_order(gray)
    assert codes.dtype == torch.uint8
    for one, code in zip(gray, codes, strict=True):
        np.testing.assert_array_equal(code, plain_loops(one.numpy()))


def test_increasing_changes_of_intensity_change_nothing():
    gray = torch.rand(4, 40, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    codes = local_intensity_order(gray)
    for change in (lambda x: x**3, lambda x: 7 * x, torch.expm1, lambda x: x + torch.floor(4 * x)):
        assert torch.equal(local_intensity_order(change(gray)), codes)
    table = np.random.default_rng(0).choice(2**15, 256, replace=False)
    levels = (gray * 255).long()
    table = torch.from_numpy(np.sort(table))
    inner = (..., slice(8, -8), slice(8, -8))
    assert torch.equal(local_intensity_order(table[levels])[inner], local_intensity_order(levels)[inner])
    assert not torch.equal(local_intensity_order(-gray), codes)


def test_module():
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    codes = LocalIntensityOrder()(images)
    torch.testing.assert_close(codes * 255, local_intensity_order((grayscale(images) * 255).round()).float())
    flat = 0.5 + 1e-5 * torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(3))  # what a blur leaves
    torch.testing.assert_close(LocalIntensityOrder()(flat), LocalIntensityOrder()(torch.full_like(flat, 0.5)))
    chain = AugmentationSequential(LocalIntensityOrder(standardize=True), data_keys=["input"])
    out = chain(images[:, :1])
    expected = local_intensity_order((images[:, :1] * 255).round()).double() / 255
    for one, code in zip(out, expected, strict=True):
        torch.testing.assert_close(one.double(), (code - code.mean()) / code.std(), rtol=0, atol=1e-5)
    assert torch.isfinite(LocalIntensityOrder(standardize=True)(torch.zeros(1, 3, 16, 16))).all()


def test_colors_are_refused():
    with pytest.raises(ValueError, match=r"got \[2, 3, 16, 16\]"):
        local_intensity_order(torch.zeros(2, 3, 16, 16))
