"""A backbone behind a fixed transform of its images."""

from typing import Any

from torch import Tensor, nn

from wildfern.ssl.evaluation.features import method_of
from wildfern.ssl.models.segmentation_settings import SegmentationSettings


class TransformedBackbone(nn.Module):
    """Features, tokens, maps and segmentation of `backbone` on `transform(images)`; both keep their own parameters and modes."""

    def __init__(self, transform: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.transform, self.backbone = transform, backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.transform(images))

    def tokens(self, images: Tensor) -> Any:
        return method_of(self.backbone, "tokens")(self.transform(images))

    def maps(self, images: Tensor) -> list[Tensor]:
        return method_of(self.backbone, "maps")(self.transform(images))

    @property
    def decoder(self) -> nn.Module | None:
        """That of the backbone."""
        return getattr(self.backbone, "decoder", None)

    @property
    def segmentation(self) -> SegmentationSettings | None:
        """That of the backbone."""
        return getattr(self.backbone, "segmentation", None)

    def segment(self, images: Tensor) -> Tensor:
        return self.backbone.segment(self.transform(images))
