"""Pixel values of any data type -> uint8, by a range of values: given, that of percentiles, or that of the data type."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError, ImageArray, UnreadableImage

Range = tuple[float, float]

DARK = 1 / 16  # an image that uses no more of its range looks black: 12 bits in 16
_BLOCK = 2**20  # values that are computed with at a time
_SAMPLED = 2**18  # values of an image from which percentiles are computed


@dataclass(frozen=True)
class RawImage:
    """Values as stored, [H, W, C], upright.

    `bits`: of unsigned integers that stand for brightness from 0 to 2^bits − 1; None for types without such a range (signed, of
    32 bits, float). `nodata`: the value of pixels without data, if the file names one.
    """

    values: NDArray
    bits: int | None
    nodata: float | None = None

    def blocks(self) -> Iterator[slice]:
        """Parts of the rows, one after the other, which take little memory whatever is computed from them."""
        height, width = self.values.shape[:2]
        step = max(1, _BLOCK // max(1, width))
        return (slice(start, start + step) for start in range(0, height, step))

    def valid(self, band: int) -> NDArray[np.bool_] | None:
        """bool[H, W]: which values of a band are finite and not `nodata`; None if all are."""
        values = self.values[..., band]
        floats = values.dtype.kind == "f"
        if self.nodata is None and not floats:
            return None
        marked = np.isfinite(values) if floats else np.ones(values.shape, bool)
        if self.nodata is not None and np.isfinite(self.nodata):
            if floats:
                marked &= values != values.dtype.type(self.nodata)
            elif self.nodata == int(self.nodata) and _holds(values.dtype, int(self.nodata)):
                marked &= values != int(self.nodata)
        return None if marked.all() else marked

    def sampled(self, most: int = _SAMPLED) -> list[NDArray]:
        """At most about `most` valid values of each band, from rows and columns at equal distances."""
        height, width = self.values.shape[:2]
        step = max(1, int(np.ceil(np.sqrt(height * width / most))))
        thin = RawImage(self.values[::step, ::step], self.bits, self.nodata)
        return [thin._valid_values(band) for band in range(self.values.shape[2])]

    @cached_property
    def extremes(self) -> Range | None:
        """The least and the greatest valid value of all bands; None without valid values."""
        parts = (RawImage(self.values[rows], self.bits, self.nodata) for rows in self.blocks())
        each = (part._valid_values(band) for part in parts for band in range(self.values.shape[2]))
        found = [(values.min(), values.max()) for values in each if values.size]
        return (float(min(low for low, _ in found)), float(max(high for _, high in found))) if found else None

    def own_range(self) -> Range:
        """0 … 2^bits − 1; for other types the smallest range that holds the image and [0, 1] (float) or [0, 255] (integers).

        So an image whose values grow a little never changes much.
        """
        if self.bits is not None:
            return 0.0, float(2**self.bits - 1)
        least, most = self.checked_extremes()
        return min(0.0, least), max(1.0 if self.values.dtype.kind in "fb" else 255.0, most)

    def checked_extremes(self) -> Range:
        """`extremes`; raises UnreadableImage if no value is valid."""
        if self.extremes is None:
            raise UnreadableImage("no value is finite: all pixels are NaN, infinite or marked as without data")
        return self.extremes

    def to_bytes(self, ranges: Sequence[Range]) -> ImageArray:
        """uint8[H, W, C]: of each band, low becomes 0 and high 255; values outside are clipped, those without data become 0."""
        out = np.empty(self.values.shape, np.uint8)
        for rows in self.blocks():
            part = RawImage(self.values[rows], self.bits, self.nodata)
            for band, (low, high) in enumerate(ranges):
                out[rows, :, band] = part._scaled(band, low, high)
        return out

    def _scaled(self, band: int, low: float, high: float) -> NDArray[np.float64]:
        """[H, W], whole numbers from 0 to 255."""
        valid = self.valid(band)
        scaled = self.values[..., band].astype(np.float64)
        if valid is not None:
            scaled[~valid] = low
        if not np.isfinite(high - low):  # float64 of both signs near its end
            low, high, scaled = low / 2, high / 2, scaled / 2
        np.clip(scaled, low, high, out=scaled)
        scaled -= low
        scaled *= 255.0 / (high - low)
        return np.rint(scaled, out=scaled)

    def remarks(self, ranges: Sequence[Range], given: bool) -> Iterator[tuple[str, str]]:
        """(kind, message) for what the user should know about these values; `given`: the ranges come from the user."""
        least, most = self.checked_extremes()
        parts = [RawImage(self.values[rows], self.bits, self.nodata) for rows in self.blocks()]
        masks = (part.valid(band) for part in parts for band in range(len(ranges)))
        invalid = sum(np.count_nonzero(~mask) for mask in masks if mask is not None)
        if invalid:
            words = "NaN, infinite or without data"
            yield (
                "invalid",
                f"{invalid:,} of {self.values.size:,} values are {words}; they are ignored, and become black",
            )
        low, high = ranges[0]
        if (given or self.bits != 8) and len(set(ranges)) == 1 and 0 < most - least <= DARK * (high - low) < np.inf:
            what = "value_range" if given else f"the range of {self.values.dtype.name}"
            yield (
                "dark",
                f"uses only {_text(least, most)} of {what}, {_text(low, high)}; set value_range: {_suggested(self)}",
            )
        if not given and self.bits is None and (least < 0 or most > (1 if self.values.dtype.kind in "fb" else 255)):
            example = f"[{least:g}, {most:g}] (or dataset, for percentiles of all images)"
            yield (
                "own range",
                f"{self.values.dtype.name} values {_text(least, most)} are scaled to each image's own range; set value_range: "
                f"{example if least < most else 'dataset (percentiles of all images)'} for one scale",
            )

    def _valid_values(self, band: int) -> NDArray:
        valid = self.valid(band)
        values = self.values[..., band]
        return values.ravel() if valid is None else values[valid]


def percentile_range(samples: Iterable[NDArray], percentiles: Range) -> Range | None:
    """The values at two percentiles of all samples together; None if there are no values. Equal ones are set apart."""
    parts = [sample for sample in samples if sample.size]
    if not parts:
        return None
    low, high = np.percentile(np.concatenate(parts).astype(np.float64), percentiles).tolist()
    return (low, high) if low < high else (low, low + max(1.0, 1e-6 * abs(low)))


def checked_ranges(value_range: object, channels: int) -> tuple[Range, ...]:
    """A range [low, high], or one for each channel, as one for each channel; raises DataError."""
    pairs = value_range if isinstance(value_range[0], list | tuple) else [value_range] * channels  # type: ignore[index]
    if len(pairs) != channels:
        raise DataError(f"value_range has {len(pairs)} ranges for {channels} bands; give one for all, or one for each")
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"value_range must be [low, high], or such a pair for each band, got {value_range}")
    for low, high in pairs:
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise DataError(f"value_range must be [low, high] with low < high, got [{low:g}, {high:g}]")
    return tuple((float(low), float(high)) for low, high in pairs)


def _holds(dtype: np.dtype, value: int) -> bool:
    return dtype.kind in "iu" and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _text(low: float, high: float) -> str:
    return f"{low:,.6g} … {high:,.6g}" if high < 1e6 else f"{low:.6g} … {high:.6g}"


def _suggested(raw: RawImage) -> str:
    """The smallest range of whole bits for unsigned integers, else that of the image."""
    least, most = raw.checked_extremes()
    if raw.bits is not None and most > 0 and least < most / 2:
        return f"[0, {2 ** int(most).bit_length() - 1}], or image or dataset (percentiles)"
    return f"[{least:g}, {most:g}], or image or dataset (percentiles)"
