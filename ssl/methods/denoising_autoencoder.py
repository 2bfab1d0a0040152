"""Denoising autoencoder (Vincent et al., 2008): the features of a noisy view must suffice to decode the clean one."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods.base import Count, Method, Needs, NotNegative
from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.models.backbone import Backbone

START = 4  # rows and columns of the decoder's first map
MOST_STAGES = 6  # 256 px

_LEAST = 2.0**-23 - 1  # the first number of `Batch.uniform` above 0, in (-1, 1): 0 has no finite normal number


@register("method", "denoising_autoencoder")
class DenoisingAutoencoder(Method):
    """A small convolutional decoder draws a view from the backbone's pooled features of its noisy copy; mean squared error.

    Noise: normal numbers of standard deviation `noise` (in units of normalized pixels) are added, and a share `masked` of the
    pixels is set to zero, the mean color (two kinds of noise of Vincent et al., 2010). The decoder draws 4 · 2^`decoder_stages`
    px, resized to the views. First stage of G-SimCLR (Chakraborty et al., 2020), whose clusters are those of the features. One or
    more views of one size; colors and crops must be those of the image: leave out color jitter.
    """

    needs = Needs(views=(1, None), float32_views=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        noise: NotNegative = 0.5,
        masked: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        decoder_width: Count = 64,
        decoder_stages: Annotated[int, Field(ge=1, le=MOST_STAGES)] = 3,
    ) -> None:
        super().__init__()
        self.backbone, self.noise, self.masked = backbone, noise, masked
        self.unpool = nn.Sequential(
            nn.Linear(backbone.width, decoder_width * START * START),
            nn.Unflatten(1, (decoder_width, START, START)),
            nn.ReLU(),
        )
        stages = (
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(decoder_width, decoder_width, 3, padding=1, bias=False),
                nn.GroupNorm(1, decoder_width),  # by image, so that micro-batches make no difference
                nn.ReLU(),
            )
            for _ in range(decoder_stages)
        )
        self.decoder = nn.Sequential(*stages, nn.Conv2d(decoder_width, backbone.in_chans, 3, padding=1))

    def forward(self, batch: Batch) -> Output:
        if len(batch.views) > 1:
            raise ValueError("denoising_autoencoder takes views of one size: set views.local_count to 0")
        views = batch.views[0]
        features = self.backbone(self._noisy(batch, views).flatten(0, 1))
        drawn = full_precision(self.decoder(self.unpool(features)))
        target = full_precision(views).flatten(0, 1)
        if drawn.shape[-2:] != target.shape[-2:]:
            drawn = F.interpolate(drawn, target.shape[-2:], mode="bilinear", antialias=True)
        loss = (drawn - target).square().mean()
        # 1 for a decoder that draws the same for every image
        spread = (target - target.mean(0)).square().mean()
        return Output(loss, {"unexplained": loss / spread.clamp(min=1e-6)}, features[: len(batch)].detach())

    def _noisy(self, batch: Batch, views: Tensor) -> Tensor:
        """Views float[V, n, C, S, S] with noise that depends on the images' positions only."""
        count, _, channels, height, width = views.shape
        if self.noise > 0:
            drawn = batch.uniform("denoising noise", count, channels, height, width).transpose(0, 1)
            normal = 2**0.5 * torch.erfinv((2 * drawn - 1).clamp(min=_LEAST))
            views = views + self.noise * normal.to(views.dtype)
        if self.masked > 0:
            kept = batch.uniform("denoising mask", count, 1, height, width).transpose(0, 1) >= self.masked
            views = views * kept.to(views.dtype)
        return views
