import numpy as np
import pytest
import torch

from wildfern.ssl.augmentation import multicrop, simclr

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def photographs(n=6, side=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


def test_shapes_and_normalization():
    views = multicrop(size=32, local_size=16, local_count=3)
    out = views(views.prepare(photographs(), seed=0, step=0, positions=np.arange(6)))
    assert [tuple(o.shape) for o in out] == [(2, 6, 3, 32, 32), (3, 6, 3, 16, 16)]
    white = simclr(size=8, jitter=0, gray=0, blur=0)
    out = white(white.prepare(np.full((2, 8, 8, 3), 255, np.uint8), 0, 0, np.arange(2)))[0]
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(out, expected.view(1, 1, 3, 1, 1).expand_as(out))


def test_a_view_depends_only_on_picture_seed_step_position_and_number():
    views, x = simclr(size=16), photographs()
    whole = views(views.prepare(x, seed=7, step=3, positions=np.arange(100, 106)))[0]
    part = views(views.prepare(x[4:], seed=7, step=3, positions=np.arange(104, 106)))[0]
    torch.testing.assert_close(whole[:, 4:], part, rtol=1e-6, atol=1e-6)
    for seed, step, positions in [(8, 3, np.arange(100, 106)), (7, 4, np.arange(100, 106)), (7, 3, np.arange(6))]:
        other = views(views.prepare(x, seed, step, positions))[0]
        assert (other - whole).abs().flatten(1).max(1).values.min() > 0.1
    assert (whole[0] - whole[1]).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_adding_views_leaves_the_first_ones_as_they_were():
    x = photographs()
    two, four = (v(v.prepare(x, 0, 0, np.arange(6)))[0] for v in (simclr(size=16), simclr(size=16, count=4)))
    torch.testing.assert_close(two, four[:2])


def test_pictures_of_different_sizes_are_cropped_on_the_host_as_on_the_device():
    views = multicrop(size=24, local_size=12, local_count=2)
    x = photographs(side=64)
    device = views(views.prepare(x, 0, 0, np.arange(6)))
    host = views(views.prepare(list(x), 0, 0, np.arange(6)))
    for one, other in zip(device, host, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().mean() < 0.02  # Pillow rounds the crop to 8 bits: 1/255/0.225 at most before color


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
def test_pictures_in_a_tensor_are_seen_as_those_in_an_array(device):
    views, x, y = multicrop(size=24, local_size=12, local_count=3).to(device), photographs(), photographs(seed=1)
    expected = views(views.prepare(x, 0, 0, np.arange(6), y))
    tensors = [torch.from_numpy(pictures).to(device) for pictures in (x, y)]
    prepared = views.prepare(tensors[0], 0, 0, np.arange(6), tensors[1])
    assert prepared.pixels is tensors[0]
    for given, right in zip(views(prepared), expected, strict=True):
        torch.testing.assert_close(given, right)
    np.testing.assert_array_equal(tensors[0].cpu(), x)


@on_a_gpu
def test_views_wait_for_pictures_that_another_stream_has_still_to_draw():
    views, x = simclr(size=24).to("cuda"), photographs()
    expected = views(views.prepare(x, 0, 0, np.arange(6)))[0]
    source = torch.from_numpy(x).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        pictures = torch.zeros_like(source)
        torch.cuda._sleep(10**9)
        pictures.copy_(source)
        prepared = views.prepare(pictures, 0, 0, np.arange(6))
    torch.testing.assert_close(views(prepared)[0], expected)


@pytest.mark.parametrize("kind", [np.asarray, list])
def test_odd_views_of_a_pair_show_its_second_picture(kind):
    views = multicrop(size=24, local_size=12, local_count=3)
    firsts, seconds = photographs(side=64), photographs(side=64, seed=1)
    of_firsts = views(views.prepare(kind(firsts), 0, 0, np.arange(6)))
    of_seconds = views(views.prepare(kind(seconds), 0, 0, np.arange(6)))
    pairs = views(views.prepare(kind(firsts), 0, 0, np.arange(6), kind(seconds)))
    number = 0
    for pair, first, second in zip(pairs, of_firsts, of_seconds, strict=True):
        for view in range(len(pair)):
            torch.testing.assert_close(pair[view], (second if number % 2 else first)[view])
            assert (first[view] - second[view]).abs().mean() > 0.1
            number += 1
    assert number == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.5}, "flip is a probability"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"hue": 0.7}, "hue"),
        ({"size": 0}, "too small"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"count": 0}, "at least one view"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        simclr(**arguments)
