"""Faults of single images: what the thresholds of a policy say about measured values."""

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.curation.image_table import ImageTable
from wildfern.ssl.curation.measure import has_wrong_extension
from wildfern.ssl.curation.policy import Policy
from wildfern.ssl.curation.verdicts import Verdicts

FAULTS = ("unreadable", "truncated", "not_an_image", "bomb")


def judge_faults(images: ImageTable, policy: Policy, verdicts: Verdicts) -> None:
    """Apply the rules from `unreadable` to `wrong_extension`. A flat image is not also dark, light or blurred."""
    faults = images.texts("fault")
    for name in FAULTS:
        found = [place for place, fault in enumerate(faults) if fault == name]
        details = [images.text("fault_detail", place) or "" for place in found]
        verdicts.add(name, getattr(policy, name).action, found, details=details)
    width, height = images.numbers("width"), images.numbers("height")
    short, long = np.minimum(width, height), np.maximum(width, height)
    sizes = width, height
    _add(verdicts, "tiny", policy.tiny.action, short < policy.tiny.min_side, short, sizes)
    aspect = long / short
    _add(verdicts, "aspect", policy.aspect.action, aspect > policy.aspect.most, aspect, sizes)
    contrast = images.numbers("contrast")
    flat = contrast < policy.flat.contrast
    _add(verdicts, "flat", policy.flat.action, flat, contrast)
    dark, light, sharpness = (images.numbers(name) for name in ("dark_percentile", "light_percentile", "sharpness"))
    _add(verdicts, "dark", policy.dark.action, ~flat & (dark < policy.dark.luma), dark)
    _add(verdicts, "light", policy.light.action, ~flat & (light > policy.light.luma), light)
    _add(verdicts, "blurred", policy.blurred.action, ~flat & (sharpness < policy.blurred.sharpness), sharpness)
    for name, rule in (("page", policy.page), ("screenshot", policy.screenshot)):
        score = images.numbers(name)
        _add(verdicts, name, rule.action, ~flat & (score >= rule.score), score)
    frames = images.numbers("frames")
    _add(verdicts, "animated", policy.animated.action, frames > 1, frames)
    if policy.wrong_extension.action != "keep":
        formats = images.texts("format")
        wrong = [n for n, path in enumerate(images.texts("path")) if has_wrong_extension(path or "", formats[n])]
        verdicts.add(
            "wrong_extension", policy.wrong_extension.action, wrong, details=[f"is {formats[n]}" for n in wrong]
        )


def _add(
    verdicts: Verdicts,
    rule: str,
    action: str,
    found: NDArray[np.bool_],
    values: NDArray[np.float64],
    sizes: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> None:
    places = np.flatnonzero(found)
    details = [f"{sizes[0][n]:.0f} x {sizes[1][n]:.0f} pixels" for n in places] if sizes else ()
    verdicts.add(rule, action, places, values[places], details)  # type: ignore[arg-type]
