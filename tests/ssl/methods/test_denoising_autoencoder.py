"""The denoising autoencoder: its noise, and its loss against a plain loop."""

import torch
from method_cases import batch, build


def test_loss_is_the_mean_squared_error_to_the_clean_views():
    method, views = build("denoising_autoencoder", 10), batch("denoising_autoencoder", 3)
    clean = views.views[0]
    noisy = method._noisy(views, clean)
    drawn = method.decoder(method.unpool(method.backbone(noisy.flatten(0, 1))))
    errors = [(drawn[i] - clean.flatten(0, 1)[i]).square().sum() / clean[0, 0].numel() for i in range(len(drawn))]
    torch.testing.assert_close(method(views).loss, torch.stack(errors).mean())


def test_noise_is_normal_and_pixels_are_masked_in_all_channels():
    method = build("denoising_autoencoder", 10)
    shape = (1, 8, 3, 64, 64)
    views = batch("denoising_autoencoder", 3)
    noise = method._noisy(views, torch.zeros(shape)).transpose(2, 0).flatten(1)  # by channel
    masked = noise == 0
    assert torch.equal(masked[0], masked[1])
    assert abs(masked[0].float().mean() - 0.2) < 0.01
    kept = noise[~masked]
    assert abs(kept.mean()) < 0.01
    assert abs(kept.std() - 0.5) < 0.01
    assert abs((kept.abs() < 0.5).float().mean() - 0.683) < 0.01  # within one standard deviation
