"""A segmenter of a run for export: one network from images in [0, 1] to the probability of each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wildfern.generators.counter_rng import key
from wildfern.launch.errors import user_errors
from wildfern.launch.evaluated import Evaluated, of_recipe
from wildfern.launch.export_network import COMPARED, ExportNetwork, file_sha256
from wildfern.launch.loaded_backbone import load_backbone
from wildfern.launch.run_decoder import FILE, attach_run_decoder
from wildfern.launch.run_folder import RunFolder
from wildfern.launch.segmented_images import AS_TRAINED
from wildfern.launch.segmenting import FIXED
from wildfern.ssl.augmentation.local_intensity_order import NEIGHBORS, comparisons
from wildfern.ssl.evaluation import TransformedBackbone
from wildfern.ssl.evaluation.preprocessing import normalized
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.segmentation_settings import SegmentationSettings

SEGMENTER_NAMES = {"onnx": "exported_segmenter.onnx", "torch_export": "exported_segmenter.pt2"}
# Largest difference of the probabilities, relative to the largest one. Sums in another order make up to 4e-6 in networks of a
# hundred steps; one other gray level that changes codes makes 8e-4 and more.
SEGMENTER_TOLERANCE = 1e-4
_LUMA = torch.tensor((0.587, 0.114)).tolist()  # weights of green and blue in `grayscale`, rounded to float32
BLOCKS = (1, 4, 16)  # pixels that the random images take turns in being smooth over


@dataclass(frozen=True)
class ExportSegmenter(ExportNetwork):
    """The network of an export from images float32[N, C, S, S] in [0, 1] to probabilities float32[N, S, S].

    S is `settings.size`, or also any multiple of `stride`, from two of them on, unless that is None. `run` computes the
    probabilities as `wildfern segment` does.
    """

    output: ClassVar[str] = "probabilities"
    run: Evaluated
    settings: SegmentationSettings
    stride: int | None

    @property
    def threshold(self) -> float:
        """The one that the run chose, or 0.5."""
        return FIXED if self.settings.threshold is None else self.settings.threshold

    def threshold_words(self) -> str:
        return "not chosen by the run" if self.settings.threshold is None else f"chosen on {self.settings.chosen_on}"

    def attempts(self) -> Sequence[ExportNetwork]:
        """With any size of images first, then with one."""
        return (self,) if self.stride is None else (self, replace(self, stride=None))

    def dynamic_shapes(self) -> dict[int, Any]:
        shapes = super().dynamic_shapes()
        if self.stride is None:
            return shapes
        side = self.stride * torch.export.Dim("n", min=2)
        return {**shapes, 2: side, 3: side}

    def random_images(self, count: int = COMPARED, side: int | None = None) -> Tensor:
        """float32[count, C, S, S] uniform in [0, 1]: noise, and smoother ones, with edges like those of objects."""
        channels, size, _ = self.input_size
        side = side or size
        generator = torch.Generator().manual_seed(key("export", side))
        images = []
        for number in range(count):
            block = BLOCKS[number % len(BLOCKS)]
            noise = torch.rand(1, channels, -(-side // block), -(-side // block), generator=generator)
            images.append(F.interpolate(noise, (side, side), mode="bilinear"))
        return torch.cat(images)

    def compared_images(self) -> list[Tensor]:
        """Several images of the window's size, and one of another size if there may be others."""
        others = [] if self.stride is None else [self.random_images(1, self.settings.size + self.stride)]
        return [self.random_images(), *others]

    def expected(self, images: Tensor) -> Tensor:
        preprocessing, backbone = self.run.preprocessing, self.run.backbone
        assert isinstance(backbone, Backbone | TransformedBackbone)
        with torch.no_grad():
            return backbone.segment(normalized(images, preprocessing.mean, preprocessing.std)).sigmoid()

    def images_words(self) -> str:
        channels, size, _ = self.input_size
        kind = {3: "RGB ", 1: "gray "}.get(channels, "")
        return f"float32 {kind}images [batch, {channels}, {size}, {size}] in [0, 1], not normalized"

    def output_words(self) -> str:
        return f"{self.output} float32 [batch, {self.settings.size}, {self.settings.size}]"

    def applying(self, call: str) -> list[str]:
        return [
            *(f"# images: {line}" for line in (self.size_words(), self.scale_words(), *self._reading_words())),
            call,
            f"masks = probabilities >= {self.threshold!r}  # {self.threshold_words()}",
        ]

    def described(self) -> list[str]:
        """What the file maps to what, and the threshold, in lines for a model card."""
        inside = "local intensity order transform" if self.orders_intensities else "normalization"
        return [
            f"maps {self.images_words()}, to {self.output_words()}; {inside} and sigmoid are in the file",
            self.size_words(),
            self.scale_words(),
            *self._reading_words(),
            f"a pixel is in the mask from a probability of {self.threshold:g} on, a threshold {self.threshold_words()}",
        ]

    def size_words(self) -> str:
        if self.stride is None:
            return f"height and width: {self.settings.size} px"
        others = f"another multiple of {self.stride} px from {2 * self.stride} on"
        return f"height and width, which are equal: {self.settings.size} px, or {others}"

    def scale_words(self) -> str:
        """How large images are to be, so that objects have the width of training."""
        if self.settings.crop_pixels is None:
            share = (sum(self.settings.crop_scale) / 2) ** 0.5
            side = f"{share:.4g} of the shorter side"
            return f"windows of images that were resized so that {side} is {self.settings.size} px"
        scale = self._scale()
        return f"windows of images that were {'not resized' if scale == 1 else f'resized by {scale:g}'}"

    def _scale(self) -> float:
        """Of images of which training took crops of a number of pixels."""
        return self.settings.scale(1, 1)

    def _reading_words(self) -> list[str]:
        """How files were read in training, if not as 8-bit images."""
        words = []
        for entry in self.recipe.data:
            given = {name: entry.arguments.get(name) for name in AS_TRAINED}
            listed = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
            said = [f"{name}={value}" for name, value in listed.items() if value is not None]
            if said:
                words.append(
                    f"{entry.source} was read with {', '.join(said)}: scale the values of files in the same way"
                )
        return words

    @property
    def orders_intensities(self) -> bool:
        return isinstance(self.run.backbone, TransformedBackbone)

    def described_images(self) -> dict[str, str]:
        size = self.settings.size
        described = super().described_images()
        left_out = {"interpolation"} | ({"mean", "std"} if self.orders_intensities else set())
        return {
            **{name: text for name, text in described.items() if name not in left_out},
            "preprocessing": "local intensity order" if self.orders_intensities else "mean and std",  # in the program
            "output": self.output,
            "window": str(size),
            "stride": "none: the size is fixed" if self.stride is None else str(self.stride),
            "scale": self.scale_words() if self.settings.crop_pixels is None else f"{self._scale():g}",
            "threshold": repr(self.threshold),
            "threshold_chosen": self.threshold_words(),
            "run_id": self.folder.run_id() or "",
            "decoder_sha256": file_sha256(self.folder.path / FILE),
        }


class Segmenter(nn.Module):
    """Images float32[N, C, S, S] in [0, 1] -> probabilities float32[N, S, S]."""

    def __init__(self, preprocessing: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.preprocessing, self.backbone = preprocessing, backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.segment(self.preprocessing(images)).sigmoid()


class Normalization(nn.Module):
    """`normalized` with mean and standard deviation as constants of the program."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class IntensityOrder(nn.Module):
    """`LocalIntensityOrder(standardize=True)` of operations that ONNX has too: sums of powers of two in place of bits."""

    def forward(self, images: Tensor) -> Tensor:
        gray = images if images.shape[1] == 1 else exact_grayscale(images)
        codes = summed_codes((gray * 255).round()) / 255
        values = codes.shape[1] * codes.shape[2] * codes.shape[3]
        mean = summed(codes) / values
        variance = summed((codes - mean).square()) / (values - 1)
        return (codes - mean) / variance.sqrt().clamp(min=1e-6)


def summed(x: Tensor) -> Tensor:
    """Sums float[N, 1, 1, 1] of float[N, C, H, W], one dimension at a time: onnxruntime adds up all values one by one."""
    for dim in (3, 2, 1):
        x = x.sum(dim, keepdim=True)
    return x


def summed_codes(gray: Tensor) -> Tensor:
    """`local_intensity_order` of float32[N, 1, H, W], as float32."""
    height, width = gray.shape[2:]
    padded = F.pad(gray, (NEIGHBORS,) * 4)
    channels: list[Any] = [0, 0, 0, 0]
    for channel, bit, down, right in comparisons():
        top, left = NEIGHBORS + down, NEIGHBORS + right
        darker = gray > padded[:, :, top : top + height, left : left + width]
        channels[channel] = channels[channel] + darker.to(gray.dtype) * 2.0**bit
    return torch.cat(channels, dim=1)


def exact_grayscale(images: Tensor) -> Tensor:
    """`grayscale` of float32 images with the rounding that it has: a product and its sum are rounded once, to float32.

    ONNX has no such operation. Rounded twice, one gray level in a hundred thousand is another one, with other codes around it.
    """
    red, green, blue = images.unbind(1)
    gray = 0.2989 * red
    for color, weight in zip((green, blue), _LUMA, strict=True):
        gray = (gray.double() + weight * color.double()).float()
    return gray.unsqueeze(1)


def export_segmenter(folder: RunFolder) -> ExportSegmenter:
    """The segmenter of a run. Raises RunError for a run without a decoder, and like `load_backbone`."""
    recipe = folder.recipe()
    with user_errors():
        backbone = load_backbone(folder.path)
        attach_run_decoder(backbone, folder, recipe)
    [run] = of_recipe(recipe, {"pretrained": backbone}, torch.device("cpu")).values()
    settings, mean, std = backbone.segmentation, run.preprocessing.mean, run.preprocessing.std
    assert settings is not None  # attached above
    is_order = isinstance(run.backbone, TransformedBackbone)
    network = Segmenter(IntensityOrder() if is_order else Normalization(mean, std), backbone)
    network.eval().requires_grad_(False)
    run.backbone.eval()
    size, sha256 = settings.size, backbone.weights_sha256 or ""
    images = {**backbone.pretrained_cfg, "input_size": (run.channels, size, size), "mean": mean, "std": std}
    return ExportSegmenter(folder, recipe, network, images, sha256, run, settings, _stride(backbone, size))


@torch.no_grad()
def _stride(backbone: Backbone, size: int) -> int | None:
    """Pixels of an image of this size for each pixel of the smallest map; None if that is no whole number."""
    maps = backbone.maps(torch.zeros(1, backbone.in_chans, size, size))
    least = min(found.shape[-1] for found in maps)
    return None if size % least else size // least
