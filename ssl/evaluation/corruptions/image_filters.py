"""Linear filters of images, by their kernel or separable by a matrix, that blur and weather are made of."""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor


def correlate(images: Tensor, kernels: NDArray[np.float32], border: str) -> Tensor:
    """Correlation with float32[1 or N, 2R + 1, 2R + 1]; by Fourier transforms, which TF32 does not touch."""
    size, reach = images.shape[3], kernels.shape[2] // 2
    padded = F.pad(images, (reach,) * 4, mode=border)
    shape = padded.shape[2:]
    spectra = torch.fft.rfft2(torch.from_numpy(kernels).to(images.device), s=shape).conj()[:, None]
    return torch.fft.irfft2(torch.fft.rfft2(padded) * spectra, s=shape)[..., :size, :size]


def motion_kernels(radius: int, sigma: float, degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    """Half a bell along a line, as of ImageMagick: each of 2 radius + 1 taps is one pixel, without interpolation."""
    taps = np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    angle = np.deg2rad(degrees)[:, None]
    rows, columns = (np.ceil(taps * part(angle) - 0.5).astype(np.int64) + 2 * radius for part in (np.sin, np.cos))
    kernels = np.zeros((len(degrees), 4 * radius + 1, 4 * radius + 1), np.float32)
    np.add.at(kernels, (np.arange(len(degrees))[:, None], rows, columns), weights / weights.sum())
    return kernels


def separable(images: Tensor, matrix: NDArray[np.float32]) -> Tensor:
    """The matrix [S, S] along both axes of the images."""
    on_device = torch.from_numpy(matrix).to(images.device)
    return on_device @ images @ on_device.T


@lru_cache(maxsize=32)
def smoothing(size: int, sigma: float, border: str, truncate: float) -> NDArray[np.float32]:
    """A Gaussian filter of a line, as a matrix [S, S]."""
    return gaussian_filter(np.eye(size), (sigma, 0), mode=border, truncate=truncate).astype(np.float32)


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """The images after a Gaussian filter of deviation `sigma` pixels."""
    return separable(images, smoothing(images.shape[3], sigma, "nearest", 4.0))


@lru_cache(maxsize=256)
def zoomed(size: int, factor: float) -> NDArray[np.float32]:
    """The matrix [S, S] that enlarges the center of a line to its whole length, linearly."""
    crop = math.ceil(size / factor)
    first = (size - crop) // 2
    rows = zoom(np.eye(crop), (factor, 1), order=1)
    trim = (len(rows) - size) // 2
    matrix = np.zeros((size, size), np.float32)
    matrix[:, first : first + crop] = rows[trim : trim + size]
    return matrix
