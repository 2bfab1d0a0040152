"""Backbones: any timm or torchvision model behind one interface of vectors, tokens and feature maps."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wildfern.ssl.models.activation_checkpointing import checkpoint_activations
from wildfern.ssl.models.networks import Stem, build_network
from wildfern.ssl.models.pretrained_weights import LoadedWeights, load_weights
from wildfern.ssl.models.segmentation_settings import SegmentationSettings
from wildfern.ssl.models.width import measure_width


class Tokens(NamedTuple):
    """Patch tokens of N images, and their class, register and distillation tokens."""

    patches: Tensor  # float[N, T, D], row by row
    prefix: Tensor  # float[N, P, D], P = 0 for most networks


class Backbone(nn.Module):
    """float[N, C, S, S] -> float[N, width]: a network without classifier, freshly initialized unless `weights` is given.

    `name` is a timm model, `torchvision/NAME`, `small_alexnet` or `unet`; `arguments` go to its constructor. `stem="cifar"` gives
    a ResNet a 3×3 first convolution of stride 1 and no max pooling, for images of about 32 px (SimCLR, appendix B.9).
    `weights` is a file of PyTorch or safetensors, a run folder, or pretrained weights to download: `timm` for the model's
    default, `timm:TAG` for one of its tags such as `timm:a1_in1k`. The network is found in a file under any prefix, and converted
    as timm does (position embeddings of another size, another number of channels); of several networks, `weights_key` chooses
    one by its prefix, for example `student`; by default a teacher or average of weights comes first.

    `network` is the wrapped module: `network.state_dict()` has the names that timm gives the weights. `mean`, `std`, `size`
    (pixels) and `interpolation` describe its input images; mean and standard deviation are ImageNet's, as in wildfern's views,
    unless the weights were trained with others. `weights_sha256` identifies the loaded weights, `weights` describes them.
    `wildfern.load_backbone` adds `transform`, which gives images as an evaluation does, and timm's `pretrained_cfg`.

    Raises ValueError for an unknown name, with the nearest ones, for arguments or a stem that do not fit the network, for a
    network that does not return one vector for each image, and for weights that cannot be found, read or used.
    """

    transform: Callable[[Any], Tensor]
    pretrained_cfg: dict[str, Any]
    recomputes: bool = False  # whether `checkpoint_activations` was called
    decoder: nn.Module | None  # of `segment`: set by `attach_decoder`, as are the settings
    segmentation: SegmentationSettings | None = None

    def __init__(
        self,
        name: str,
        weights: str | Path | None = None,
        stem: Stem = "standard",
        in_chans: int = 3,
        weights_key: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.decoder = None
        self.name, self.in_chans = name, in_chans
        self.network: Any = build_network(name, stem, in_chans, **arguments)
        config = getattr(self.network, "pretrained_cfg", None) or {}
        height, width = _image_size(self.network, config, stem, arguments)
        self.size = height
        described = f"{name} with model.arguments {arguments}" if arguments else name
        self.width = measure_width(self.network, (in_chans, height, width), described)
        self.mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
        self.std: tuple[float, ...] = IMAGENET_DEFAULT_STD
        self.interpolation: str = config.get("interpolation") or "bilinear"
        self.weights: LoadedWeights | None = None
        self.weights_sha256: str | None = None
        if weights is not None:
            if not isinstance(weights, str | Path) or not str(weights).strip():
                given = repr(weights) if isinstance(weights, str) else type(weights).__name__
                raise ValueError(f"model.weights must be a path, timm or timm:TAG, got {given}")
            self.weights = load_weights(self.network, name, str(weights), weights_key, in_chans, arguments)
            self.weights_sha256 = self.weights.sha256
            if self.weights.normalization is not None:
                self.mean, self.std = self.weights.normalization
        self._patches = _patches(self.network)

    def checkpoint_activations(self) -> None:
        """Compute the blocks again in backward passes, instead of keeping their activations: about one more forward pass.

        Loss, gradients and running statistics stay the same, of vectors, `tokens` and `maps` alike. Raises ValueError for a
        network for which timm has no checkpointing.
        """
        checkpoint_activations(self.network, self.name)
        self.recomputes = True

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def pooled(self, x: Tensor) -> Tensor:
        """One vector for each image: float[N, C, S, S] -> float[N, width]."""
        return self(x)

    def tokens(
        self, x: Tensor, keep: Tensor | None = None, masked: Tensor | None = None, mask_token: Tensor | None = None
    ) -> Tokens:
        """The network's features before pooling: float[N, C, S, S] -> float[N, T, D] and float[N, P, D].

        Feature maps are flattened row by row. With `keep`, int64[N, K] numbers of patches, only these patches go through the
        transformer's blocks, after position embeddings were added (MAE, He et al., 2022, section 3.1); T is then K.
        With `masked`, bool[N, T], the embeddings of those patches are replaced by `mask_token`, float[D], before position
        embeddings are added (SimMIM, Xie et al., 2022, section 3.2; iBOT, Zhou et al., 2022).
        Raises ValueError for a network without such features, and with `keep` or `masked` for one that is not a plain vision
        transformer.
        """
        if (masked is None) != (mask_token is None):
            raise ValueError("tokens() needs masked and mask_token together")
        if keep is not None or masked is not None:
            return self._partial_tokens(x, keep, masked, mask_token)
        features = self._features(x)
        if features.ndim == 4:
            channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
            patches = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
            return Tokens(patches, patches[:, :0])
        prefix = self._num_prefix_tokens(features.shape[1], *x.shape[-2:])
        return Tokens(features[:, prefix:], features[:, :prefix])

    def pool(self, tokens: Tokens) -> Tensor:
        """`pooled` from the `tokens` of a vision transformer: float[N, T, D] and float[N, P, D] -> float[N, width]."""
        return self.network.forward_head(torch.cat([tokens.prefix, tokens.patches], dim=1))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps float[N, C, H, W] of the network's stages, in order: large to small, or one for each block.

        Raises ValueError for a network that does not provide them.
        """
        if not hasattr(self.network, "forward_intermediates"):
            raise ValueError(f"{self.name} has no feature maps: choose a timm model with forward_intermediates")
        stages = partial(self.network.forward_intermediates, intermediates_only=True, output_fmt="NCHW")
        return self._as_forward(stages, x)

    def attach_decoder(self, decoder: nn.Module, settings: SegmentationSettings) -> None:
        """Make this backbone a segmenter: `decoder` maps (the list of `maps`, side S) to logits float[N, S, S]."""
        self.decoder, self.segmentation = decoder, settings

    def segment(self, x: Tensor) -> Tensor:
        """A logit for each pixel: float[N, C, S, S] -> float[N, S, S]. Raises ValueError for a backbone without decoder."""
        if self.decoder is None:
            raise ValueError(f"{self.name} has no decoder: choose a run of a method that segments, such as freecos")
        return self.decoder(self.maps(x), x.shape[-1])

    @property
    def patch_size(self) -> int | None:
        """Pixels along one side of a patch of a vision transformer; None for other networks."""
        return None if self._patches is None else self._patches[0]

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of a vision transformer's patches for images of `size`; None for other networks."""
        return None if self._patches is None else self._patches[1]

    def _as_forward(self, function: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run `function(x)` as the network's forward pass, so that its hooks run (ZeRO 3 gathers weights in them)."""
        self.network.forward = function
        try:
            return self.network(x)
        finally:
            del self.network.forward  # restores the class's method

    def _features(self, x: Tensor) -> Tensor:
        if not hasattr(self.network, "forward_features"):
            raise ValueError(f"{self.name} has no tokens: choose a timm model")
        features = self._as_forward(self.network.forward_features, x)
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise ValueError(
                f"{self.name} has no tokens: its features before pooling are not one tensor [N, T, D] or one map"
            )
        return features

    def _num_prefix_tokens(self, tokens: int, rows: int, columns: int) -> int:
        """Number of prefix tokens, before the patch tokens, for an image of rows × columns pixels."""
        if declared := getattr(self.network, "num_prefix_tokens", 0):
            return declared
        stages = getattr(self.network, "feature_info", None)
        reduction = stages[-1].get("reduction") if isinstance(stages, list) and stages else None
        if reduction is None:
            return 0
        surplus = tokens - math.ceil(rows / reduction) * math.ceil(columns / reduction)
        if tokens <= 2 and surplus < 0:
            raise ValueError(f"{self.name} has no tokens of patches: it returns only its class token")
        return surplus if surplus in (1, 2) else 0  # class and distillation token, which VOLO does not declare

    def _partial_tokens(
        self, x: Tensor, keep: Tensor | None, masked: Tensor | None, mask_token: Tensor | None
    ) -> Tokens:
        vit = self.network
        if (
            not isinstance(vit, VisionTransformer)
            or type(vit).forward_features is not VisionTransformer.forward_features
        ):
            raise ValueError(
                f"{self.name} cannot process part of an image's patches: choose a plain vision transformer such as "
                "vit_small_patch16_224"
            )
        if not isinstance(vit.patch_drop, nn.Identity):
            raise ValueError(
                f"{self.name} drops patches itself (patch_drop_rate), which keep and masked do not allow: set it to 0"
            )
        prefix = vit.num_prefix_tokens

        def features_of_part(x: Tensor) -> Tensor:
            patches = vit.patch_embed(x)  # [N, T, D], or [N, rows, columns, D] with dynamic_img_size
            if masked is not None and mask_token is not None:
                hidden = masked.view(*patches.shape[:-1], 1)
                patches = torch.where(hidden, mask_token.to(patches.dtype), patches)
            embedded = vit._pos_embed(patches)
            if keep is not None:
                kept = embedded[:, prefix:].gather(1, keep[..., None].expand(-1, -1, embedded.shape[-1]))
                embedded = torch.cat([embedded[:, :prefix], kept], dim=1)
            embedded = vit.norm_pre(embedded)
            # As in timm's forward_features.
            return vit.norm(checkpoint_seq(vit.blocks, embedded) if self.recomputes else vit.blocks(embedded))

        features = self._as_forward(features_of_part, x)
        return Tokens(features[:, prefix:], features[:, :prefix])


def _image_size(network: nn.Module, config: dict, stem: str, arguments: dict) -> tuple[int, int]:
    """(height, width) in pixels of the images that a network is made for."""
    embedding = getattr(network, "patch_embed", None)
    size = arguments.get("img_size") or getattr(embedding, "img_size", None) or getattr(network, "image_size", None)
    if size is None:
        size = 32 if stem == "cifar" else tuple(config.get("input_size") or (3, 224, 224))[-2:]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _patches(network: nn.Module) -> tuple[int, tuple[int, int]] | None:
    """Patch size and grid of a network whose features have one token for each patch, such as a vision transformer's."""
    embedding = getattr(network, "patch_embed", None)
    stages = getattr(network, "feature_info", None)
    size, grid = getattr(embedding, "patch_size", None), getattr(embedding, "grid_size", None)
    if not size or not grid or not isinstance(stages, list) or not stages:
        return None
    size = size if isinstance(size, int) else size[0]
    return (size, tuple(grid)) if stages[-1].get("reduction") == size else None
