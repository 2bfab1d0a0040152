"""Formatting of numbers for the terminal."""

import math
from collections.abc import Mapping


def status_parts(metrics: Mapping[str, float], timings: Mapping[str, float]) -> dict[str, str]:
    """The standard values of a progress line, as text, by name; missing ones are left out."""
    parts = {}
    if "loss" in metrics:
        parts["loss"] = f"loss {number(metrics['loss'])}"
    if "learning_rate" in metrics:
        parts["learning_rate"] = f"lr {metrics['learning_rate']:.1e}"
    if "images_per_second" in timings:
        parts["images_per_second"] = f"{speed(timings['images_per_second'])} img/s"
    if "step_seconds" in timings:
        parts["step_seconds"] = f"{step_time(timings['step_seconds'])}/step"
    if "data_wait" in timings:
        parts["data_wait"] = f"wait {timings['data_wait']:.0%}"
    if "memory_gib" in timings:
        parts["memory_gib"] = f"{timings['memory_gib']:.3g} GiB"
    return parts


def number(value: float) -> str:
    """`value` with four decimals; very large and very small values in exponent notation."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def speed(images_per_second: float) -> str:
    return f"{images_per_second:.1f}" if images_per_second < 10 else f"{images_per_second:.0f}"


def step_time(seconds: float) -> str:
    """`0.8 ms`, `81 ms`, `1.25 s`."""
    milliseconds = 1000 * seconds
    if milliseconds >= 1000:
        return f"{seconds:.2f} s"
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def duration(seconds: float) -> str:
    """`0:34`, `12:05`, `3:00:59`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
