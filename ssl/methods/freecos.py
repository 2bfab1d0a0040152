"""FreeCOS (Shi et al., ICCV 2023): segmentation of curvilinear objects from rendered masks and unlabeled images."""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.dice import dice_loss, dice_sums
from wildfern.ssl.losses.domain_confusion import SOURCE, TARGET, domain_loss
from wildfern.ssl.losses.full_precision import full_precision, without_autocast
from wildfern.ssl.losses.mask_contrast import mask_contrast
from wildfern.ssl.losses.weighted_cross_entropy import weighted_cross_entropy
from wildfern.ssl.methods.base import Count, Method, Needs, NotNegative, ParameterGroup, Positive
from wildfern.ssl.methods.batch import Batch, Metrics, Output
from wildfern.ssl.methods.gather import all_gather_embeddings, average_over_ranks, sum_over_ranks, world_size
from wildfern.ssl.methods.pixel_samples import pixel_order, sample_pixels, vectors_at
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.decoders import DecoderName, make_decoder
from wildfern.ssl.models.discriminator import Discriminator

LEAST_PIXELS = 5  # of an object or of background in an image that takes part in the contrast
SMALLEST = 32  # pixels of a view for the discriminator


@register("method", "freecos")
class FreeCOS(Method):
    """A backbone with a decoder learns masks of rendered images and is aligned with images that have none.

    Images of sources with masks: soft Dice loss of all of them together, and binary cross entropy with weights for objects and
    background. Images of sources without: a discriminator tells their predictions from those of rendered images, and the network
    learns to confuse it, with a weight that falls linearly to 0 (prediction-space alignment). Contrast: pixels of rendered
    objects are attracted to confident ones of real objects and repelled from background. `adversarial` 0 and `contrast` 0 leave
    these out; then images without masks are not needed. Weights of 0.25 and 0.125 are the published 1/4 and 1/8.

    One view. The discriminator has Adam with `discriminator_rate` for itself. Unlike the public code, rendered and real images
    share one forward pass, and so the statistics of batch normalization; pixels are drawn per image, at most `contrast_pixels`.
    """

    needs = Needs(views=(1, 1), masks=True, float32_views=False)
    usual = Usual("Shi et al., ICCV 2023, section 4.1", weight_decay=True)

    def __init__(
        self,
        backbone: Backbone,
        total_steps: int,
        *,
        decoder: DecoderName = "unet",
        decoder_width: Count = 512,
        dice: NotNegative = 1.0,
        cross_entropy: NotNegative = 0.1,
        foreground_weight: Positive = 1.0,
        background_weight: Positive = 0.1,
        adversarial: NotNegative = 0.25,
        discriminator_weight: NotNegative = 0.125,
        discriminator_rate: Positive = 1e-3,
        discriminator_width: Count = 64,
        contrast: NotNegative = 0.04,
        contrast_width: Count = 64,
        temperature: Positive = 0.1,
        query_share: Annotated[float, Field(gt=0, le=1)] = 0.3,
        contrast_pixels: Count = 256,
        negatives: Count = 250,
        confident: Annotated[float, Field(gt=0.5, lt=1)] = 0.9,
    ) -> None:
        super().__init__()
        if not dice and not cross_entropy:
            raise ValueError("dice and cross_entropy are both 0: nothing would learn the masks")
        self.backbone, self.total_steps = backbone, total_steps
        self.decoder = make_decoder(backbone, decoder, decoder_width)
        self.dice, self.cross_entropy = dice, cross_entropy
        self.foreground_weight, self.background_weight = foreground_weight, background_weight
        self.adversarial, self.contrast = adversarial, contrast
        self.discriminator_weight, self.discriminator_rate = discriminator_weight, discriminator_rate
        self.temperature, self.query_share, self.confident = temperature, query_share, confident
        self.contrast_pixels, self.negatives = contrast_pixels, negatives
        self.discriminator = Discriminator(discriminator_width) if adversarial else None
        self.needs = replace(
            self.needs, smallest_view=SMALLEST if adversarial else 1, unmasked=bool(adversarial or contrast)
        )
        self.project: nn.Module | None = None
        if contrast:
            width = self.decoder.features_width
            self.near = nn.Conv2d(width, contrast_width, 3, padding=1)
            self.project = nn.Sequential(
                nn.ReLU(),
                nn.Linear(contrast_width, contrast_width),
                nn.ReLU(),
                nn.Linear(contrast_width, contrast_width),
            )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The discriminator's parameters have their own optimizer, Adam with β = (0.9, 0.99)."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        own = [(name, p) for name, p in named if name.startswith("discriminator.")]
        rest = ParameterGroup([(name, p) for name, p in named if not name.startswith("discriminator.")])
        if not own:
            return [rest]
        options = {"betas": (0.9, 0.99)}
        rate = self.discriminator_rate
        return [
            rest,
            ParameterGroup(own, "discriminator", weight_decay=0.0, optimizer="adam", rate=rate, options=options),
        ]

    def segmentation_decoder(self) -> nn.Module:
        return self.decoder

    def forward(self, batch: Batch) -> Output:
        assert batch.masks is not None  # required by `needs`, as `masked`
        assert batch.masked is not None
        views, masks, masked = batch.views[0][0], batch.masks[0][0], batch.masked
        size = views.shape[-1]
        maps = self.backbone.maps(views)
        features = self.decoder.features(maps, size)
        logits = full_precision(self.decoder.classify(features)[:, 0])
        target = (masks > 0).to(logits.dtype)
        weights = _Weights(masked)
        loss, metrics = self._supervised(logits, target, weights)
        if self.discriminator is not None:
            aligned, found = self._aligned(self.discriminator, logits.sigmoid(), weights, batch.step)
            loss, metrics = loss + aligned, metrics | found
        if self.project is not None:
            contrasted = self._contrasted(features, logits, target, batch)
            loss, metrics = loss + self.contrast * contrasted, metrics | {"contrast_loss": contrasted}
        return Output(loss, metrics, maps[-1].mean(dim=(2, 3)).float().detach())

    def _supervised(self, logits: Tensor, target: Tensor, weights: "_Weights") -> tuple[Tensor, Metrics]:
        """Loss of the images with masks."""
        mine = weights.masked[:, None, None].to(logits.dtype)
        sums = average_over_ranks(dice_sums(logits.sigmoid() * mine, target * mine)) * world_size()
        dice = dice_loss(sums)
        pixels = weighted_cross_entropy(logits, target, self.foreground_weight, self.background_weight)
        entropy = weights.mean_of_masked(pixels)
        with torch.no_grad():
            hard = sum_over_ranks(dice_sums((logits > 0).to(logits.dtype) * mine, target * mine))
            overlap = 1 - dice_loss(hard)
        metrics = {"dice_loss": dice, "cross_entropy": entropy, "dice": overlap}
        return self.dice * dice + self.cross_entropy * entropy, metrics

    def _aligned(
        self, discriminator: Discriminator, probabilities: Tensor, weights: "_Weights", step: int
    ) -> tuple[Tensor, Metrics]:
        """Losses of the discriminator, and of the network that confuses it, in one backward pass: neither reaches the other."""
        fooled = full_precision(discriminator(probabilities[:, None], frozen=True))
        confused = weights.mean_of_unmasked(domain_loss(fooled, SOURCE))
        told = full_precision(discriminator(probabilities[:, None].detach()))
        source, real = (
            weights.mean_of_masked(domain_loss(told, SOURCE)),
            weights.mean_of_unmasked(domain_loss(told, TARGET)),
        )
        weight = self.adversarial * max(0.0, 1 - step / self.total_steps)
        with torch.no_grad():
            right = ((told.mean(dim=(1, 2, 3)) > 0) != weights.masked).to(told.dtype)
            accuracy = 0.5 * (weights.mean_of_masked(right) + weights.mean_of_unmasked(right))
        metrics = {
            "adversarial_loss": confused,
            "discriminator_loss": source + real,
            "discriminator_accuracy": accuracy,
        }
        return weight * confused + self.discriminator_weight * (source + real), metrics

    def _contrasted(self, features: Tensor, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Contrast of the sampled pixels of the global batch; the same on all ranks."""
        assert batch.masked is not None
        assert self.project is not None
        masked, probabilities = batch.masked[:, None, None], logits.detach().sigmoid()
        objects = torch.where(masked, target > 0, probabilities > self.confident)
        background = torch.where(masked, target == 0, probabilities < 1 - self.confident)
        order = pixel_order(batch, "contrast", *target.shape[1:])
        positive = sample_pixels(objects, order, self.query_share, self.contrast_pixels, LEAST_PIXELS)
        negative = sample_pixels(background, order, self.query_share, self.negatives, LEAST_PIXELS)
        near = self.near(features)
        chosen = torch.cat([vectors_at(near, positive.places), vectors_at(near, negative.places)], dim=1)
        with without_autocast(chosen):
            vectors = F.normalize(self.project(full_precision(chosen)), dim=-1)
        count = positive.places.shape[1]
        near_objects = _Gathered.of(vectors[:, :count], positive.chosen, positive.order, batch.masked)
        near_ground = _Gathered.of(vectors[:, count:], negative.chosen, negative.order, batch.masked)
        (queries, are), (partners, are_too) = near_objects.in_front(True), near_objects.in_front(False)
        grounds = [near_ground.first(kind, self.negatives) for kind in (True, False)]
        negatives, counted = (torch.cat(parts) for parts in zip(*grounds, strict=True))
        return mask_contrast(queries, partners, negatives, self.temperature, are & are_too, counted)


class _Weights:
    """Means over all images with masks, or all without, of the global batch: the mean over ranks of what each rank returns."""

    def __init__(self, masked: Tensor) -> None:
        self.masked = masked
        self.count = sum_over_ranks(torch.stack([masked.sum(), (~masked).sum()]).float())

    def mean_of_masked(self, values: Tensor) -> Tensor:
        return self._mean(values, self.masked, self.count[0])

    def mean_of_unmasked(self, values: Tensor) -> Tensor:
        return self._mean(values, ~self.masked, self.count[1])

    def _mean(self, values: Tensor, which: Tensor, count: Tensor) -> Tensor:
        """0 if there are none."""
        return (values * which.to(values.dtype)).sum() * world_size() / count.clamp(min=1).to(values.dtype)


class _Gathered:
    """Vectors of sampled pixels of the global batch, by whether their image has a mask."""

    def __init__(self, vectors: Tensor, chosen: Tensor, order: Tensor, masked: Tensor) -> None:
        self.vectors, self.chosen, self.order, self.masked = vectors, chosen, order, masked

    @classmethod
    def of(cls, vectors: Tensor, chosen: Tensor, order: Tensor, masked: Tensor) -> "_Gathered":
        """Those of all ranks, in global order: vectors [n, K, D], chosen and order [n, K], masked [n]."""
        n, count, width = vectors.shape
        about = torch.stack([chosen, order, masked[:, None].expand(-1, count)], dim=-1).to(vectors.dtype)
        own = torch.cat([vectors, about], dim=-1)
        whole = all_gather_embeddings(own.view(1, n, -1))[0].view(-1, width + 3)
        kinds = whole[:, width:].detach()
        return cls(whole[:, :width], kinds[:, 0] > 0, kinds[:, 1], kinds[:, 2] > 0)

    def in_front(self, masked: bool) -> tuple[Tensor, Tensor]:
        """All vectors, those chosen of images with masks (or without) first, in the order of images; and which these are."""
        which = self.chosen & (self.masked == masked)
        places = which.logical_not().to(torch.uint8).argsort(stable=True)
        return self.vectors[places], which[places]

    def first(self, masked: bool, most: int) -> tuple[Tensor, Tensor]:
        """`most` of these with the smallest random numbers, and which of them are chosen: all, unless there are fewer."""
        which = self.chosen & (self.masked == masked)
        places = torch.where(which, self.order, torch.inf).argsort(stable=True)[:most]
        return self.vectors[places], which[places]
