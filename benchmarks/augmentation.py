"""Views per second: the same augmentations with kornia, with torchvision on PIL images in two workers, and with wildfern.

Each case states the lower bound for a view from its bytes and operations at this machine's speeds (`view_floor`).
"""

from concurrent.futures import ProcessPoolExecutor

import kornia.augmentation as K
import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from wildfern.benchmarks.result import Benchmark, compare
from wildfern.benchmarks.view_floor import Cost, Speeds, crop_cost, mean_cost, speeds, view_cost
from wildfern.ssl.augmentation import MEAN, STD, Views, multicrop, simclr
from wildfern.ssl.augmentation.host_crops import crop_images

# Size of image and view, batch size; larger batches on a GPU.
CASES = {"cpu": ((32, 128), (224, 16)), "cuda": ((32, 512), (224, 256))}
WORKERS = 2
_worker: dict = {}  # what a worker process keeps
MULTICROP = 256  # side of the images
MULTICROP_BATCH = {"cpu": 8, "cuda": 64}
PHOTOGRAPHS = ((375, 500), 8)  # height and width, images in a batch


def run(seconds: float) -> Benchmark:
    """SimCLR's two views: crop, flip, jitter, gray, blur, normalize; DINO's two large and eight small ones; crops alone."""
    rows, floors = [], []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for size, batch in CASES[device.type]:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        views, plain = simclr(size=size).to(device), kornia_chain(size).to(device)
        workers = ProcessPoolExecutor(WORKERS, initializer=_start_worker, initargs=(pixels,))

        def with_kornia(pixels=pixels, plain=plain) -> None:
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(255)
            plain(torch.cat([images, images]))
            _finish(device)

        def with_torchvision(workers=workers, batch=batch) -> None:
            parts = workers.map(_views_by_worker, np.array_split(np.arange(batch), WORKERS))
            torch.from_numpy(np.concatenate(list(parts)))

        def ours(pixels=pixels, views=views, batch=batch) -> None:
            views(views.prepare(pixels, 0, 0, np.arange(batch)))
            _finish(device)

        things = {"kornia": with_kornia, f"torchvision on PIL, {WORKERS} workers": with_torchvision, "wildfern": ours}
        with workers:
            rows += compare(f"SimCLR 2 views, {size} px", 2 * batch, things, seconds)
        floors.append(mean_cost([view_cost(view, size, size) for view in views.groups[0]]))
    rows += _multicrop(device, seconds)
    side = MULTICROP
    floors.append(mean_cost([view_cost(view, side, side) for group in multicrop().groups for view in group]))
    rows += _photographs(seconds)
    floors.append(mean_cost([crop_cost(view, *PHOTOGRAPHS[0]) for view in simclr().groups[0]]))
    threads = torch.get_num_threads()
    several, one = speeds(device, threads), speeds(torch.device("cpu"), 1)
    words = [f"on {device}" + (f", {threads} threads" if device.type == "cpu" else "") + "; lower bound for a view:"]
    ours = [row for row in rows if row["what"].startswith("wildfern")]
    words += [
        _floor(row, cost, one if row["case"].startswith("crops") else several)
        for row, cost in zip(ours, floors, strict=True)
    ]
    return Benchmark("augmentation", "views/s", "\n".join(words), rows)


def _floor(row: dict, cost: Cost, machine: Speeds) -> str:
    rate = 1 / machine.seconds(cost)
    return f"{row['case']}: {cost}; at {machine}, {rate:,.0f} views/s, {rate / row['rate']:.1f} × the measured rate"


def _photographs(seconds: float) -> list[dict]:
    """Crops of photographs to uint8, on the host, in one thread: what the loader does for images of different sizes."""
    (height, width), batch = PHOTOGRAPHS
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(batch)]
    views: Views = simclr()
    (table,), ((count, size),) = views.draw(0, 0, np.arange(batch)), views.shape
    boxes = table.boxes(np.full(batch, height), np.full(batch, width))
    opened = [Image.fromarray(image) for image in images]

    def with_pillow() -> None:
        for i, image in enumerate(opened):
            for v in range(count):
                top, left, box_height, box_width = boxes[v, i].tolist()
                crop = image.crop((left, top, left + box_width, top + box_height))
                crop = crop.resize((size, size), Image.Resampling.BILINEAR)
                np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if table.flip[v, i] else crop)

    things = {"Pillow": with_pillow, "wildfern": lambda: crop_images(images, table, size)}
    return compare(f"crops of {size} px from {height} × {width}, 1 thread", count * batch, things, seconds)


def _multicrop(device: torch.device, seconds: float) -> list[dict]:
    side, batch = MULTICROP, MULTICROP_BATCH[device.type]
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    views = multicrop().to(device)
    large, small = (0.4, 1.0), (0.05, 0.4)
    same = {"jitter": (0.4, 0.4, 0.2, 0.1), "resample": "BICUBIC"}
    first = kornia_chain(224, large, blur=1.0, **same).to(device)
    second = kornia_chain(224, large, blur=0.1, solarize=0.2, **same).to(device)
    local = kornia_chain(96, small, blur=0.5, **same).to(device)

    def with_kornia() -> None:
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(255)
        first(images)
        second(images)
        local(torch.cat([images] * 8))
        _finish(device)

    def ours() -> None:
        views(views.prepare(pixels, 0, 0, np.arange(batch)))
        _finish(device)

    things = {"kornia": with_kornia, "wildfern": ours}
    return compare(f"DINO 2 × 224 + 8 × 96 px of {side} px", 10 * batch, things, seconds)


def _start_worker(pixels: np.ndarray) -> None:
    torch.set_num_threads(1)
    _worker["images"] = [Image.fromarray(p) for p in pixels]
    _worker["transform"] = torchvision_chain(pixels.shape[1])


def _views_by_worker(numbers: np.ndarray) -> np.ndarray:
    """Two views of each of these images."""
    images, transform = _worker["images"], _worker["transform"]
    return torch.stack([transform(images[i]) for i in numbers for _ in range(2)]).numpy()


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def kornia_chain(
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
    blur: float = 0.5,
    solarize: float = 0.0,
    resample: str = "BILINEAR",
) -> nn.Module:
    """The augmentations in plain kornia; SimCLR's by default.

    kornia's `thresholds` is the largest distance of the threshold from 0.5.
    """
    kernel = max(3, 2 * (size // 20) + 1)
    return nn.Sequential(
        K.RandomResizedCrop((size, size), scale=scale, resample=resample),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*jitter, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=blur),
        *([K.RandomSolarize(thresholds=0.0, additions=0.0, p=solarize)] if solarize else []),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )


def torchvision_chain(size: int) -> nn.Module:
    """The augmentations in torchvision, image by image."""
    kernel = max(3, 2 * (size // 20) + 1)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
