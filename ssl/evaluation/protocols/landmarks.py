"""Landmark retrieval on revisited Oxford and Paris: easy, medium and hard (Radenović et al., 2018)."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wildfern.ssl.data import decode_image, square
from wildfern.ssl.data.resize import resize
from wildfern.ssl.evaluation.evaluator import Score
from wildfern.ssl.evaluation.features import extract_features
from wildfern.ssl.evaluation.metrics.classification_scores import joined, mean_score
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.evaluation.protocols.landmark_ground_truth import (
    LandmarkGroundTruth,
    LandmarkQuery,
    read_ground_truth,
)
from wildfern.ssl.evaluation.protocols.neighbor_search import similarities
from wildfern.ssl.tracking.progress import SILENT, Progress

# Which images are positive for a query, and which are left out of its ranking, as if they were not in the gallery.
SETUPS = {
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
    "easy": (("easy",), ("junk", "hard")),
}
RANKS = (1, 5, 10)
AT_ONCE = 32  # squares of the network's size in memory

Box = tuple[float, float, float, float]


def revisited_scores(similarity: Tensor, ground_truth: LandmarkGroundTruth, detail: str = "") -> list[Score]:
    """Mean average precision and mean precision@1, 5 and 10 of the setups medium, hard and easy, from similarity float[Q, N].

    Average precision is the area under the precision-recall curve by trapezoids: a positive at rank r (from 1), the j-th one
    found, adds ((j - 1) / (r - 1) + j / r) / 2 of its share of the positives, with 1 for 0 / 0. Ranks are without the images that
    the setup leaves out. precision@k is among the first k images, or up to the last positive if that comes earlier. Queries
    without a positive of a setup are not counted in it. Among equals the earlier image of the gallery comes first.
    Raises ValueError for another shape, for NaN, and for a setup without any positive.
    """
    queries, images = len(ground_truth.queries), len(ground_truth.gallery)
    if similarity.shape != (queries, images):
        raise ValueError(f"similarity is [{queries}, {images}], queries and images, got {list(similarity.shape)}")
    if torch.isnan(similarity).any():
        raise ValueError("the similarities contain NaN")
    detail = joined(f"gallery of {images} images", detail)
    order = similarity.sort(dim=1, descending=True, stable=True).indices.cpu().numpy()
    scores = []
    for setup, (positive, left_out) in SETUPS.items():
        values = []
        for query, ranking in zip(ground_truth.queries, order, strict=True):
            ranks = _ranks(ranking, _places(query, positive), _places(query, left_out))
            if len(ranks):
                values.append([_average_precision(ranks), *(_precision_at(ranks, k) for k in RANKS)])
        if not values:
            raise ValueError(f"no query has a positive image in the setup {setup}")
        metrics = ("mean_average_precision", *(f"precision@{k}" for k in RANKS))
        for metric, of_queries in zip(metrics, torch.tensor(values, dtype=torch.float64).T, strict=True):
            scores.append(mean_score(f"{setup}_{metric}", of_queries, detail))
    return scores


def evaluate_landmarks(
    backbone: nn.Module,
    folder: str | os.PathLike[str],
    ground_truth: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    longer_side: int | None = None,
    crop_queries: bool = True,
    progress: Progress = SILENT,
) -> list[Score]:
    """`revisited_scores` of a backbone's features by cosine similarity, medium mean average precision first.

    `folder` has a file NAME.jpg for each name of the ground truth (`read_ground_truth`). With `longer_side` whole images are
    taken one by one, shrunk to at most that many pixels (1024 in the paper), and queries are cropped to their box at the same
    scale: the backbone must take images of any shape. Otherwise images, and the boxes of queries, are resized and center-cropped
    to `preprocessing.size`. `crop_queries` False: whole query images, as in DINO's evaluation. Nothing is chosen.
    Raises ValueError for impossible settings, and for images that are missing or unreadable.
    """
    settings = preprocessing or Preprocessing()
    if longer_side is None and settings.size is None:
        raise ValueError("landmark images have several shapes: give preprocessing a size, or a longer_side")
    if longer_side is not None and longer_side < 1:
        raise ValueError(f"longer_side is a number of pixels, at least 1; got {longer_side}")
    truth, root = read_ground_truth(ground_truth), Path(folder)
    queries: list[tuple[Path, Box | None]] = [
        (root / f"{query.name}.jpg", query.box if crop_queries else None) for query in truth.queries
    ]
    gallery: list[tuple[Path, Box | None]] = [(root / f"{name}.jpg", None) for name in truth.gallery]
    if missing := [file for file, _ in queries + gallery if not file.is_file()]:
        raise ValueError(f"{len(missing)} images of the ground truth are missing, such as {missing[0]}")
    options = {key: value for key, value in vars(settings).items() if key != "size"}
    chunk, total = 1 if longer_side is not None else AT_ONCE, len(queries) + len(gallery)

    def chunks() -> Iterator[tuple[NDArray[np.uint8], None]]:
        wanted = queries + gallery
        for start in range(0, total, chunk):
            progress.count(start, total, "images")
            images = [_image(*one, settings.size, longer_side) for one in wanted[start : start + chunk]]
            yield np.stack(images), None

    features = extract_features(backbone, chunks(), **options).x
    similarity = torch.cat(list(similarities(features[len(queries) :], features[: len(queries)])))
    size = f"squares of {settings.size} px" if longer_side is None else f"whole images of at most {longer_side} px"
    return revisited_scores(similarity, truth, f"{size}, queries {'cropped to their box' if crop_queries else 'whole'}")


def _places(query: LandmarkQuery, answers: tuple[str, ...]) -> NDArray[np.int64]:
    return np.concatenate([getattr(query, answer) for answer in answers])


def _ranks(ranking: NDArray[np.int64], positive: NDArray[np.int64], left_out: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ranks, from 1, of the positive images among those that are not left out."""
    return np.flatnonzero(np.isin(ranking[~np.isin(ranking, left_out)], positive)) + 1


def _average_precision(ranks: NDArray[np.int64]) -> float:
    found = np.arange(1, len(ranks) + 1)
    before = np.where(ranks == 1, 1.0, (found - 1) / np.maximum(ranks - 1, 1))
    return float(((before + found / ranks) / 2).mean())


def _precision_at(ranks: NDArray[np.int64], k: int) -> float:
    first = min(k, int(ranks[-1]))
    return int((ranks <= first).sum()) / first


def _image(file: Path, box: Box | None, size: int | None, longer_side: int | None) -> NDArray[np.uint8]:
    """An image or its box: shrunk by the factor that makes the whole image fit `longer_side`, or a square of `size`."""
    try:
        image = decode_image(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    side = max(image.shape[:2])
    if box is not None:
        image = _cropped(image, box, file)
    if longer_side is None and size is not None:
        return square(image, size)
    if longer_side is None or side <= longer_side:
        return image
    height, width = (max(1, round(length * longer_side / side)) for length in image.shape[:2])
    return resize(image, (width, height))


def _cropped(image: NDArray[np.uint8], box: Box, file: Path) -> NDArray[np.uint8]:
    """The box in whole pixels, up to the edges of the image."""
    height, width = image.shape[:2]
    left, top = (max(0, round(edge)) for edge in box[:2])
    right, bottom = min(width, round(box[2])), min(height, round(box[3]))
    if left >= right or top >= bottom:
        raise ValueError(f"{file}: the box {list(box)} has no pixel of this image of {width} x {height} pixels")
    return np.ascontiguousarray(image[top:bottom, left:right])
