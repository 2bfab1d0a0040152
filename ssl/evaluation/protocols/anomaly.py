"""Anomaly detection without training: the test images score each other, patch by patch (MuSc: Li et al., ICLR 2024).

"MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the Unlabeled Images". A normal patch
is like some patch of most other images; an anomalous one is like few.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wildfern.registry import register
from wildfern.ssl.evaluation.evaluator import Chunk, ChunkStream, Evaluator, HeldOut, Score
from wildfern.ssl.evaluation.protocols.anomaly_scores import image_scores, pixel_scores
from wildfern.ssl.evaluation.unit_rows import unit_rows
from wildfern.ssl.tracking.progress import SILENT, Progress

ELEMENTS = 2**24  # of the similarities of an image's patches to those of other images that are computed at once
QUARTERS = 4  # MuSc takes the last block of each quarter of a vision transformer: 6, 12, 18 and 24 of ViT-L
STAGES = 3  # of other networks, the last ones


def neighborhood_tokens(maps: Tensor, degree: int) -> Tensor:
    """LNAMD: the mean over each patch's `degree` × `degree` neighborhood, scaled to length 1.

    Maps float[N, C, H, W] of `standardized` values -> float[N, H · W, C], row by row. Patches outside of the map count as zeros,
    which changes only the length before scaling. Section 3.1.
    """
    pooled = F.avg_pool2d(maps, degree, stride=1, padding=degree // 2)
    return unit_rows(pooled.flatten(2).transpose(1, 2))


def standardized(maps: Tensor) -> Tensor:
    """float[N, C, H, W] with mean 0 and standard deviation 1 over all values of an image, as the authors' code prepares LNAMD."""
    return F.layer_norm(maps, maps.shape[1:])


def mutual_scores(tokens: Tensor, interval: float = 0.3, progress: Progress = SILENT, detail: str = "") -> Tensor:
    """MSM: how far each patch is from the other images, float[N, T], of tokens float[N, T, C] of length 1, N ≥ 2.

    The distance to another image is that to its nearest patch; the score is the mean over the nearest `interval` of the N - 1
    others, at least one (section 3.2). `detail` says to `progress` what is scored.
    """
    images, patches, channels = tokens.shape
    kept = max(1, math.floor(interval * (images - 1) + 1e-9))
    block = max(1, ELEMENTS // (patches * max(patches, channels)))
    scores = tokens.new_empty(images, patches)
    for image, own in enumerate(tokens):
        progress.count(image, images, "images", detail)
        distances = []
        for others in tokens.split(block):
            similarity = (own @ others.flatten(0, 1).T).view(patches, len(others), patches)
            nearest = similarity.argmax(2).T  # of unit vectors, the most similar one is the nearest
            # The distance is that of the vectors, as sqrt(2 - 2 · similarity) would lose half of its digits near 0.
            there = others.gather(1, nearest[:, :, None].expand(-1, -1, channels))
            distances.append((own - there).norm(dim=2))
        to_others = torch.cat(distances)
        to_others[image] = math.inf
        scores[image] = to_others.topk(kept, dim=0, largest=False).values.mean(0)
    return scores


def mutual_maps(
    layers: Sequence[Tensor],
    degrees: Sequence[int] = (1, 3, 5),
    interval: float = 0.3,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Tensor:
    """Mutual scores of each patch, float32[N, H, W] on the CPU: the mean over degrees and layers (section 3.2).

    `layers`: `standardized` maps float[N, C, H, W] of the same N ≥ 2 images, moved to `device` one after the other. The scores
    of a coarser layer are resized to the grid of the finest one.
    """
    grid = [max(layer.shape[axis] for layer in layers) for axis in (2, 3)]
    total = torch.zeros(len(layers[0]), 1, *grid)
    for number, layer in enumerate(layers, start=1):
        moved = layer.to(device).float()
        for degree in degrees:
            detail = f"layer {number} of {len(layers)}, neighborhood {degree}"
            scores = mutual_scores(neighborhood_tokens(moved, degree), interval, progress, detail)
            one = scores.unflatten(1, layer.shape[2:])[:, None]
            total += F.interpolate(one, grid, mode="bilinear", align_corners=False).cpu()
    return total[:, 0] / (len(layers) * len(degrees))


def rescored(scores: Tensor, descriptors: Tensor, neighbors: Sequence[int] = (1, 2, 3)) -> Tensor:
    """RsCIN: the mean score of the k most similar images, itself included, weighted by similarity; the mean over `neighbors` k.

    Scores float[N], descriptors float[N, D] of the images -> float[N]. Similarity is the cosine, at least 0. In matrices
    D⁻¹ (M ∘ W) c, with M the mask of the k nearest images (section 3.3). k = 1 leaves the scores as they are; k above N is N.
    """
    unit = unit_rows(descriptors)
    similarity = (unit @ unit.T).clamp(min=0).fill_diagonal_(1.0)
    order = similarity.clone().fill_diagonal_(math.inf).argsort(dim=1, descending=True, stable=True)
    means = []
    for k in neighbors:
        weights = similarity.gather(1, order[:, :k])
        means.append((weights * scores[order[:, :k]]).sum(1) / weights.sum(1))
    return torch.stack(means).mean(0)


@dataclass(frozen=True)
class _Images:
    """All test images: standardized maps of the chosen layers as float16[N, C, H, W], on the CPU, and what is known of each."""

    layers: list[Tensor]
    descriptors: Tensor  # float32[N, C]: the mean of the last map
    anomalous: Tensor  # bool[N]
    masks: Tensor | None  # uint8[N, H, W]
    device: torch.device


@register("evaluator", "anomaly")
class Anomaly(Evaluator):
    """Anomaly detection without training (MuSc): AUROC, average precision and F1-max of the images, and of the pixels with PRO.

    Pixel scores are for test images with masks. Train is not used. The class `normal` (in any case) is normal, all others
    are anomalous; labels and masks are used for the scores alone.
    layers: numbers of the network's maps, from 0, or from -1 at the end. None: if all maps have one shape, as of a vision
        transformer, the last of each quarter; else the last three.
    degrees: sides of the neighborhoods, odd. interval: the share of the other images, the nearest, that score a patch.
    neighbors: numbers of similar images, itself included, whose scores are averaged; (1,) leaves the image scores as they are.
    Images are similar by the cosine of the means of the last map; MuSc takes the class token, which not all networks have.
    """

    needs = "maps"

    def __init__(
        self,
        *,
        layers: tuple[int, ...] | None = None,
        degrees: tuple[int, ...] = (1, 3, 5),
        interval: float = 0.3,
        neighbors: tuple[int, ...] = (1, 2, 3),
        normal: str = "good",
    ) -> None:
        if layers is not None and not layers:
            raise ValueError("layers names one layer or more; leave it out for the default")
        if not degrees or any(degree < 1 or degree % 2 == 0 for degree in degrees):
            raise ValueError(f"degrees are odd sides of neighborhoods, at least one, got {list(degrees)}")
        if not 0 < interval <= 1:
            raise ValueError(f"interval is a share of the other images, above 0 and at most 1, got {interval}")
        if not neighbors or min(neighbors) < 1:
            raise ValueError(f"neighbors are numbers of images, at least 1 each, got {list(neighbors)}")
        self.layers, self.degrees, self.interval, self.neighbors = layers, degrees, interval, neighbors
        self.normal = normal

    def __call__(self, train: ChunkStream, test: HeldOut[ChunkStream]) -> list[Score]:
        normal = self._normal_class(test.class_names or train.class_names)
        found = self._collected(test.read(), normal)  # type: ignore[arg-type]  (an iterator, of a stream)
        maps = mutual_maps(found.layers, self.degrees, self.interval, found.device, self.progress)
        scores = rescored(maps.flatten(1).amax(1), found.descriptors, self.neighbors)
        results = image_scores(scores.numpy(), found.anomalous.numpy())
        if found.masks is not None:
            self.progress.detail("pixel scores")
            pixels = F.interpolate(maps[:, None], found.masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
            results += pixel_scores(pixels.numpy(), found.masks.numpy())
        return results

    def _normal_class(self, class_names: Sequence[str] | None) -> int:
        names = [] if class_names is None else list(class_names)
        found = [label for label, name in enumerate(names) if name.casefold() == self.normal.casefold()]
        if len(found) != 1:
            classes = ", ".join(names[:6]) + " …" * (len(names) > 6) or "no named classes"
            raise ValueError(
                f"normal names the class of images without an anomaly, {self.normal!r}; there are {classes}"
            )
        return found[0]

    def _collected(self, chunks: Iterator[Chunk], normal: int) -> _Images:
        kept: list[list[Tensor]] = []
        descriptors, labels, masks = [], [], []
        device = torch.device("cpu")
        for chunk in chunks:
            device = chunk.y.device
            chosen = self._chosen([one.shape[1:] for one in chunk.x])
            # Standardized values are at most √(C · H · W), so they fit into 16 bits, which halves the memory.
            kept.append([standardized(chunk.x[layer].float()).half().cpu() for layer in chosen])
            descriptors.append(chunk.x[-1].float().mean((2, 3)).cpu())
            labels.append(chunk.y.cpu())
            masks += [] if chunk.masks is None else [chunk.masks.cpu()]
        if sum(map(len, labels)) < 2:
            raise ValueError(f"test images score each other: at least two are needed, got {sum(map(len, labels))}")
        layers = [torch.cat(parts) for parts in zip(*kept, strict=True)]
        if not all(layer.isfinite().all() for layer in layers):
            raise ValueError("the maps of the backbone contain NaN or infinity: it has diverged")
        anomalous = torch.cat(labels) != normal
        marked = torch.cat(masks) if masks else None
        if marked is not None and marked[~anomalous].any():
            raise ValueError(
                f"a test image of the class {self.normal!r}, without an anomaly, has a mask that marks pixels"
            )
        return _Images(layers, torch.cat(descriptors), anomalous, marked, device)

    def _chosen(self, shapes: Sequence[torch.Size]) -> list[int]:
        """The numbers of the maps that are scored, of those with these shapes [C, H, W]."""
        maps = len(shapes)
        if self.layers is None:
            if len(set(shapes)) == 1:
                return sorted({max(1, maps * quarter // QUARTERS) - 1 for quarter in range(1, QUARTERS + 1)})
            return list(range(max(0, maps - STAGES), maps))
        for layer in self.layers:
            if not -maps <= layer < maps:
                raise ValueError(f"layers names {layer}, but the network has {maps} maps, 0 … {maps - 1}")
        return [layer % maps for layer in self.layers]

    def describe(self) -> str:
        layers = f"layers {_listed(self.layers)}" if self.layers else "the last block of each quarter or last 3 stages"
        return (
            f"MuSc on the unlabeled test images, train not used: distance of a patch to the nearest {100 * self.interval:g} % of "
            f"the other images, mean over {layers} and neighborhoods of side {_listed(self.degrees)}; an image's score is its "
            f"maximum, averaged over its {_listed(self.neighbors)} most similar images; {self.normal!r} is normal"
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
