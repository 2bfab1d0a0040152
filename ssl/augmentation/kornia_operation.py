"""Any kornia augmentation of single images by name, with parameters drawn from counter keys.

kornia draws from torch's global generator. Here every random function that it calls while drawing gets its own generator,
seeded by a counter key, so that the global state is not touched and any thread may draw. Parameters are drawn for the whole
global batch and a rank takes those of its positions: W ranks see what one process sees. If a number is drawn for each pixel,
each image is drawn separately, from its own key, so that no rank holds the noise of the whole batch.

This is checked on a few images when an operation is built: an operation that draws while it is applied, that depends on the
whole batch or that changes the size of images is refused.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kornia.augmentation
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wildfern.generators.options import nearest
from wildfern.ssl.augmentation.operation import check_probabilities
from wildfern.ssl.augmentation.view_keys import image_keys, step_key
from wildfern.ssl.losses.full_precision import without_autocast

_TRIED = 5  # images
_REFUSED = {"RandomDissolving": "it downloads a diffusion model"}
# torch's random functions that take a generator
_RANDOM = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"),
    *("normal_", "uniform_", "bernoulli_", "random_", "exponential_", "cauchy_", "geometric_", "log_normal_"),
    *("_standard_gamma", "_sample_dirichlet"),
}

Parameters = dict[str, Tensor]


class _SeededDraws(TorchFunctionMode):
    """In this thread, torch's random functions draw from a generator with this seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed & (2**63 - 1))

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _RANDOM and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self.generator}
        return func(*args, **kwargs)


class KorniaOperation(nn.Module):
    """A kornia augmentation whose parameters are a function of (seed, step, position, view) and the global batch size.

    It is for views of `size` px with `channels` channels. `draw` runs on the host, in any thread; calling the module applies the
    parameters. Operations of one chain differ by their `place` in it. Raises ValueError, with the reason, for an operation that
    cannot be used so.
    """

    def __init__(self, name: str, module: nn.Module, size: int, place: int = 0, channels: int = 3) -> None:
        super().__init__()
        self.name, self.module, self.size, self.place, self.channels = name, module, size, place, channels
        self._shared: set[str] = set()  # parameters of the whole batch
        self._numbering: set[str] = set()  # parameters that number the images of the batch
        self._by_image = False
        self._examine()

    @property
    def moves_pixels(self) -> bool:
        """Whether it moves pixels, so that masks and boxes would have to follow; colors and erasing do not."""
        return not isinstance(self.module, kornia.augmentation.IntensityAugmentationBase2D)

    def draw(self, seed: int, step: int, positions: NDArray[np.int64], view: int, batch: int) -> Parameters:
        """Parameters for view `view` of the images at these positions (int64[n]) of a global batch of `batch` images.

        Raises ValueError for positions outside the batch.
        """
        positions = np.asarray(positions, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < batch:
            raise ValueError(f"positions {positions.min()} … {positions.max()} are outside of a batch of {batch}")
        purpose = f"kornia {self.place} {self.name}"
        if not self._by_image or not len(positions):
            whole = self._drawn(int(step_key(purpose, seed, step, view)[0]), batch)
            return self._part(whole, torch.from_numpy(positions))
        singles = [self._drawn(int(key), 1) for key in image_keys(purpose, seed, step, view, positions)]
        joined = {name: torch.cat([single[name] for single in singles]) for name in singles[0]}
        return {**joined, "forward_input_shape": torch.tensor([len(positions), self.channels, self.size, self.size])}

    def forward(self, images: Tensor, parameters: Parameters) -> Tensor:
        """float[n, C, S, S] in [0, 1] changed by the parameters of `draw`; noise may leave the range, as in kornia.

        Runs without autocast, since a warp would compute positions in bfloat16.
        """
        with without_autocast(images):
            return self.module(images, parameters)

    def _apply(self, fn: Callable, recurse: bool = True) -> "KorniaOperation":
        super()._apply(fn, recurse)
        self.module.set_rng_device_and_dtype(torch.device("cpu"), torch.float32)  # the same numbers on every device
        return self

    def _drawn(self, seed: int, batch: int) -> Parameters:
        with _SeededDraws(seed):
            return self.module.forward_parameters((batch, self.channels, self.size, self.size))

    def _part(self, whole: Parameters, rows: Tensor) -> Parameters:
        part = {name: value if name in self._shared else value[rows] for name, value in whole.items()}
        for name in self._numbering:
            part[name] = torch.arange(len(rows), dtype=part[name].dtype).view_as(part[name])
        part["forward_input_shape"] = torch.cat([torch.tensor([len(rows)]), whole["forward_input_shape"][1:]])
        return part

    def _examine(self) -> None:
        """Find the parameters that belong to images; refuse an operation that cannot be drawn for a part of a batch."""
        try:
            self._classify()
            reason = self._reason_against()
        except Exception as error:  # kornia raises any exception for arguments that it did not check before
            of = "" if self.channels == 3 else f" and {self.channels} channels"
            raise ValueError(f"{self.name} cannot be applied to images of {self.size} px{of}: {error}") from error
        if reason:
            raise ValueError(f"{self.name} cannot be used for views: {reason}")

    def _classify(self) -> None:
        few, more = (self._drawn(0, count) for count in (3, _TRIED))
        for name, value in more.items():
            if not value.dim() or (len(few[name]), len(value)) != (3, _TRIED):
                self._shared.add(name)
            elif _is_numbering(few[name]) and _is_numbering(value):
                self._numbering.add(name)
        own = [value for name, value in more.items() if name not in self._shared]
        alike = self.module.same_on_batch or self.module.p_batch not in (0, 1) or len(self._shared) > 1
        self._by_image = not alike and any(value.shape[-2:] == (self.size, self.size) for value in own)

    @torch.no_grad()
    def _reason_against(self) -> str | None:
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(_TRIED, self.channels, 5, 5, generator=generator)
        images = nn.functional.interpolate(coarse, (self.size, self.size), mode="bicubic").clamp(0, 1)
        for seed in range(2):
            drawn, again = self._drawn(seed, _TRIED), self._drawn(seed, _TRIED)
            if any(not torch.equal(value, again[name]) for name, value in drawn.items()):
                return "it draws numbers that cannot be seeded"
            drawn["batch_prob"] = torch.ones(_TRIED)
            results = []
            for other_seed in range(2):
                with _SeededDraws(other_seed):
                    results.append(self(images, dict(drawn)))
            if results[0].shape != images.shape:
                return f"it changes images from {list(images.shape[1:])} to {list(results[0].shape[1:])}"
            if _differ(*results):
                return "it draws random numbers while it is applied"
            for rows in (torch.arange(1), torch.arange(1, _TRIED)):
                try:
                    part = self(images[rows], self._part(drawn, rows))
                except (IndexError, RuntimeError):
                    part = None
                if part is None or _differ(part, results[0][rows]):
                    return "its effect on an image depends on the other images of the batch"
        return None


def _is_numbering(value: Tensor) -> bool:
    """Whether these number the images of a batch."""
    return value[0].numel() == 1 and torch.equal(value.flatten(), torch.arange(len(value), dtype=value.dtype))


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether more than a few pixels differ by more than rounding."""
    return one.shape != other.shape or bool(((one - other).abs() > 1e-3).float().mean() > 1e-3)


def operation_names() -> list[str]:
    """Names of kornia's 2D augmentations of single images."""
    base = kornia.augmentation.AugmentationBase2D
    return sorted(
        name
        for name, value in vars(kornia.augmentation).items()
        if inspect.isclass(value) and issubclass(value, base) and not name.endswith("Base2D")
    )


def build_operation(
    name: str, arguments: Mapping[str, Any], size: int, place: int = 0, channels: int = 3
) -> KorniaOperation:
    """kornia's augmentation of that name for views of `size` px; lists among the arguments count as tuples.

    Raises ValueError for an unknown name or argument (with the nearest one), a missing argument, a value that kornia refuses, a
    `p` or `p_batch` outside [0, 1], and operations that cannot be used for views (with the reason).
    """
    valid = operation_names()
    if name not in valid:
        if hasattr(kornia.augmentation, str(name)):
            raise ValueError(
                f"kornia's {name} is not a 2D augmentation of single images; available: {', '.join(valid)}"
            )
        raise ValueError(f"unknown kornia augmentation {name!r}: {nearest(name, valid)}")
    if name in _REFUSED:
        raise ValueError(f"{name} cannot be used for views: {_REFUSED[name]}")
    kind = getattr(kornia.augmentation, name)
    known = inspect.signature(kind).parameters
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}: {nearest(argument, list(known))}")
    missing = [n for n, parameter in known.items() if parameter.default is parameter.empty and n not in arguments]
    if missing:
        raise ValueError(f"{name} needs the argument {missing[0]!r}")
    given = {n: _as_kornia_takes_it(value, known[n].annotation) for n, value in arguments.items()}
    try:
        check_probabilities(
            **{n: given[n] for n in ("p", "p_batch") if n in given}
        )  # kornia accepts any number, also NaN
        module = kind(**given)
    except Exception as error:  # kornia raises any exception
        raise ValueError(f"{name} cannot be built with {dict(arguments)}: {error}") from error
    return KorniaOperation(name, module, size, place, channels)


def build_operations(
    entries: Sequence[Mapping[str, Any] | Callable[[int], nn.Module]], size: int, channels: int = 3
) -> list[nn.Module]:
    """A chain of operations for views of `size` px, from entries `{operation: NAME, argument: value, …}` as in a recipe.

    From Python, an entry can also be a callable that makes an operation of one's own from `size`: a module with the `draw` and
    `forward` of `KorniaOperation` and, if it moves pixels, with `moves_pixels = True`. Raises one ValueError with all faults.
    """
    built, wrong = [], []
    for place, entry in enumerate(entries):
        if callable(entry):
            built.append(entry(size))
            continue
        arguments = dict(entry)
        name = arguments.pop("operation", None)
        try:
            if name is None:
                raise ValueError("`operation`, the name of a kornia augmentation, is missing")
            built.append(build_operation(name, arguments, size, place, channels))
        except ValueError as error:
            wrong.append(f"operation {place}: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return built


def _as_kornia_takes_it(value: Any, annotation: Any) -> Any:
    if annotation in (Tensor, "Tensor", "torch.Tensor") and not isinstance(value, Tensor):
        return torch.tensor(value)
    return tuple(_as_kornia_takes_it(v, None) for v in value) if isinstance(value, list | tuple) else value
