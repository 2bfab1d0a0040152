"""The interface of a method: heads, teachers and loss around a backbone. Only `forward(batch) -> Output` is required."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from wildfern.ssl.methods.batch import Batch, Output
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.models.backbone import Backbone
from wildfern.ssl.models.frozen_teacher import FrozenTeacher
from wildfern.ssl.models.teacher import MomentumTeacher, whole

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Needs:
    """Requirements of a method on its batches; recipes are checked against them before training starts.

    views: minimum and maximum number of views per image (None: no maximum), over all groups.
    full_size_views: number of views in the first group (None: any number).
    labels: "classes" for int64[n], "multi_hot" for uint8[n, K], "any" for either, None if labels are not used.
    masks: whether `Batch.masks` is required. unmasked: whether some images must come from a source without masks.
    smallest_view: least size of a view, in pixels.
    items, parameters: whether `Batch.items`, or `Batch.parameters`, are required.
    images: minimum number of images in a micro-batch, over all ranks: 2 or more if the loss compares images with each other.
    float32_views: True if the loss reads the views themselves, so that they must not be rounded to bfloat16. A method that
        only feeds views to its backbone sets False.
    """

    views: tuple[int, int | None] = (2, None)
    full_size_views: int | None = None
    labels: Literal["classes", "multi_hot", "any"] | None = None
    masks: bool = False
    float32_views: bool = True
    images: int = 1
    items: bool = False
    parameters: bool = False
    unmasked: bool = False
    smallest_view: int = 1

    def check_views(self, shape: list[tuple[int, int]]) -> None:
        """Raise ValueError if views of this shape, (number, size) for each group, do not fit."""
        total, (least, most) = sum(count for count, _ in shape), self.views
        if total < least or (most is not None and total > most):
            number = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
            raise ValueError(f"this method needs {number} view{'s' * (number != '1')} of each image, got {total}")
        if self.full_size_views not in (None, shape[0][0]):
            raise ValueError(
                f"this method needs {self.full_size_views} views of full size (for instance views.name=multicrop), "
                f"got {shape[0][0]}"
            )
        if (size := min(size for _, size in shape)) < self.smallest_view:
            raise ValueError(f"this method needs views of at least {self.smallest_view} px, got {size}")

    def check_images(self, batch_size: int, accumulation: int) -> None:
        """Raise ValueError if the `accumulation` micro-batches of a global batch would have too few images."""
        if batch_size < self.images:
            raise ValueError(f"this method compares images: a batch needs at least {self.images}, got {batch_size}")
        if batch_size // accumulation < self.images:
            most = max(parts for parts in range(1, batch_size // self.images + 1) if batch_size % parts == 0)
            images = batch_size // accumulation
            raise ValueError(
                f"this method compares images: a part of the batch needs at least {self.images}, but {accumulation} parts of "
                f"{batch_size} images have {images} each; at most {most} parts are possible"
            )

    def check_batch(self, batch: Batch) -> None:
        """Raise ValueError if the batch lacks labels, masks, items or parameters that the method needs."""
        if self.masks and batch.masks is None:
            raise ValueError("this method needs masks, but no source of `data` has any")
        if self.items and batch.items is None:
            raise ValueError("this method needs the numbers of the images, `Batch.items`")
        if self.parameters and batch.parameters is None:
            raise ValueError(
                "this method needs the parameters of rendered images, but no source of `data` has any (the generators ifs and "
                "spectrum have)"
            )
        if self.labels is None:
            return
        kind = None if batch.labels is None else "classes" if batch.labels.ndim == 1 else "multi_hot"
        if kind is None or self.labels not in ("any", kind):
            wanted = {"classes": "one class for each image", "multi_hot": "several classes for each image"}
            found = "no labels" if kind is None else wanted[kind]
            raise ValueError(f"this method needs {wanted.get(self.labels, 'labels')}, but the data has {found}")


@dataclass
class ParameterGroup:
    """Parameters with common factors of the recipe's learning rate and weight decay, and options of the optimizer.

    Weight decay is not applied to biases and normalization in any group. With `constant_rate` the learning rate does not follow
    the schedule. `name` is for messages and logs.

    optimizer: name of an optimizer of the group's own, such as "adam", with that optimizer's defaults and `options`; None: the
        recipe's. The recipe's weight decay times the factor holds here too.
    rate: learning rate at the schedule's peak, above 0, in place of the factor; None: the recipe's times the factor.
    """

    parameters: list[tuple[str, nn.Parameter]]
    name: str = ""
    learning_rate: float = 1.0
    weight_decay: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    constant_rate: bool = False
    optimizer: str | None = None
    rate: float | None = None


class Method(nn.Module):
    """A training objective. All sub-modules are optimized; teachers are not sub-modules.

    Constructors take the backbone and `total_steps` by position, and their recipe keys as typed keyword-only arguments.
    Draw random numbers with `Batch.uniform`. Queues and centers are buffers, updated with the global batch (see
    `wildfern.ssl.methods.gather`), so that they are equal on all ranks and saved once.
    """

    needs: Needs = Needs()
    usual: Usual | None = None  # what its paper trains with
    backbone: Backbone
    # what to change if a run's log shows collapse, in a sentence after "try"
    if_collapsed: str = "a lower optimizer.learning_rate, a longer schedule.warmup or a larger training.batch_size"
    freeze: int = 0  # steps at the start of training in which the backbone's weights do not change

    def __init__(self) -> None:
        super().__init__()
        self._teachers: dict[str, tuple[MomentumTeacher, tuple[str, ...], Callable[[int], float]]] = {}
        self._frozen: dict[str, FrozenTeacher] = {}

    def forward(self, batch: Batch) -> Output:
        """Loss, metrics and features of this rank's part of the global batch."""
        raise NotImplementedError(f"{type(self).__name__}.forward() must return an Output")

    def encode(self, head: Callable[[Tensor], Tensor], views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Run the backbone once per resolution and the head once on all views.

        Returns embeddings float[V, n, D], with the views of all groups in order, and the first view's detached features
        float[n, F].
        """
        n = views[0].shape[1]
        head_inputs = torch.cat([self.backbone(group.flatten(0, 1)) for group in views])
        return head(head_inputs).unflatten(0, (-1, n)), head_inputs[:n].detach()

    def add_teacher(self, name: str, student: Iterable[str], momentum: Callable[[int], float]) -> MomentumTeacher:
        """Add a momentum teacher: a copy of the sub-modules named in `student`, applied in sequence.

        It is updated with `momentum(step)` after every step, saved in checkpoints, and neither sharded nor optimized by engines.
        Its dropout and stochastic depth are off; its batch normalization uses batch statistics. Raises ValueError for a name
        that another teacher has.
        """
        if isinstance(student, str):
            raise ValueError(f"add_teacher({name!r}, …): student must be a list of names, for example [{student!r}]")
        self._check_new(name)
        names = tuple(student)
        teacher = MomentumTeacher(self._chain(names))
        self._teachers[name] = (teacher, names, momentum)
        return teacher

    def teachers(self) -> dict[str, nn.Module]:
        """The teachers' networks by name; not optimized, but saved in checkpoints."""
        return {name: teacher.module for name, (teacher, *_) in self._teachers.items()}

    def add_frozen_teacher(self, name: str, backbone: Backbone) -> FrozenTeacher:
        """Add a teacher that does not change: a backbone with weights of its own.

        It is in eval mode, and neither optimized nor saved. Checkpoints hold the SHA-256 of its weights, and resuming refuses
        others. Raises ValueError for a name that another teacher has.
        """
        self._check_new(name)
        teacher = self._frozen[name] = FrozenTeacher(backbone)
        return teacher

    def frozen_teachers(self) -> dict[str, FrozenTeacher]:
        """The teachers that do not change, by name."""
        return dict(self._frozen)

    def networks(self) -> list[nn.Module]:
        """All that is moved to a device: the method itself, its momentum teachers and its frozen ones."""
        return [self, *self.teachers().values(), *(teacher.module for teacher in self._frozen.values())]

    def after_step(self, step: int, gather: Callable[[Iterable[nn.Parameter]], AbstractContextManager] = whole) -> None:
        """Called after the optimizer's step number `step`: updates the teachers. `gather` makes sharded parameters whole."""
        for teacher, names, momentum in self._teachers.values():
            teacher.update(self._chain(names), momentum(step), gather)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Groups for the optimizer; override it for example for another learning rate of a predictor."""
        return [ParameterGroup([(name, p) for name, p in self.named_parameters() if p.requires_grad])]

    def collapsed_loss(self, images: int) -> float | None:
        """The loss if all outputs are equal, such as ln K for a choice among K, with `images` in the global batch.

        A run whose loss stays there gets a warning. None if that is not known, or if a smaller loss is impossible.
        """
        return None

    def networks_to_compile(self) -> list[nn.Module]:
        """The networks that `training.compile` compiles: the backbone and the teachers."""
        return [self.backbone, *self.teachers().values(), *(teacher.backbone for teacher in self._frozen.values())]

    def eval_backbone(self) -> Backbone:
        """The backbone to evaluate and export (the teacher's if the paper evaluates the teacher)."""
        return self.backbone

    def segmentation_decoder(self) -> nn.Module | None:
        """What completes `eval_backbone()` to a segmenter (see `Backbone.attach_decoder`); None for a method without."""
        return None

    def _check_new(self, name: str) -> None:
        if name in self._teachers or name in self._frozen:
            raise ValueError(f"two teachers are named {name!r}")

    def _chain(self, names: Iterable[str]) -> nn.Sequential:
        return nn.Sequential(*(self.get_submodule(name) for name in names))


@torch.no_grad()
def embedding_std(z: Tensor) -> Tensor:
    """Standard deviation of unit embeddings float[V, N, D] times √D: 1 if uniform on the sphere, 0 on collapse."""
    return z.detach().float()[0].std(dim=0).mean() * z.shape[-1] ** 0.5
