"""Memory, FLOPs and communication of one step, by a dry run with real shapes and operations but no values."""

import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from wildfern.ssl.methods import Batch, ComparingMethod, Method, ParameterGroup
from wildfern.ssl.methods.comparing import compares_whole_batch
from wildfern.ssl.models import Backbone, synchronize_batch_norm
from wildfern.ssl.models.sharded_module import sharded_weights
from wildfern.ssl.training.engine import MakeOptimizer, Precision
from wildfern.ssl.training.parameter_groups import checked_groups, grouped_optimizer


@dataclass(frozen=True)
class Footprint:
    """One micro-batch of one rank. Sizes are bytes; `flops` counts a multiplication and an addition as two."""

    parameters: int  # number of trained parameters
    weights: int  # parameters and buffers
    teachers: int  # momentum teachers, with their buffers
    gradients: int
    optimizer: int  # state of the optimizer after a step
    views: int  # as the networks get them
    saved: int  # activations kept for the backward pass
    peak: int  # maximum of activations and gradients, without the above
    peak_without_gradients: int  # the same if each gradient is freed as soon as it is computed (ZeRO 2, 3)
    flops: int  # forward passes and backward pass, teachers included
    sent: int  # by one rank for embeddings, centers and batch statistics, all passes
    forward_passes: int = (
        1  # of the trained networks; more if micro-batches share one loss, or blocks are computed again
    )
    teacher_weights: int = 0  # of the momentum teachers, which ZeRO 3 shards
    teacher_unit: int = 0  # the most of them that it gathers at a time
    frozen_teachers: int = 0


def step_footprint(
    method: Method,
    make_optimizer: MakeOptimizer,
    view_shape: list[tuple[int, int]],
    images: int,
    *,
    precision: Precision,
    channels: int = 3,
    view_dtype: torch.dtype = torch.float32,
    world_size: int = 1,
    parts: int = 1,
    step: int = 0,
) -> Footprint:
    """A dry run of one of `parts` micro-batches of `images` on one of `world_size` ranks; `method` is on torch's meta device.

    `view_shape` is [(number of views, size in pixels)], see `Views.shape`. Allocates almost nothing and computes no values:
    a method that reads values (`.item()`, a branch on a tensor) raises RuntimeError. Operations are those of the CPU; workspaces
    of kernels and rounding by allocators are not counted. The method cannot be used afterwards.
    """
    optimizer_bytes = optimizer_state(method, make_optimizer)
    with FakeTensorMode(), _ranks(world_size), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # older names of collectives
        _without_values(method)
        teachers = method.networks()[1:]
        for module in teachers:
            _without_values(module)
        if world_size > 1:
            for module in (method, *teachers):
                synchronize_batch_norm(module)
        views = [
            torch.empty(
                count * images, channels, size, size, dtype=view_dtype, memory_format=torch.channels_last
            ).unflatten(0, (count, images))
            for count, size in view_shape
        ]
        trained = [p for p in method.parameters() if p.requires_grad]
        live, flops = _LiveBytes(world_size), _Flops()
        hooks = [p.register_post_accumulate_grad_hook(live.gradient) for p in trained]
        with live, flops:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                output = method(dry_batch(method, views, step))
            saved, live.backward = live.now, True
            output.loss.backward()
        for hook in hooks:
            hook.remove()
        del output
        first, shared, more_flops = _LiveBytes(world_size), _LiveBytes(world_size), _Flops()
        two_passes = parts > 1 and compares_whole_batch(method)
        recomputes = any(isinstance(module, Backbone) and module.recomputes for module in method.modules())
        momentum = list(method.teachers().values())
        if two_passes:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                _shared_loss(
                    cast(ComparingMethod, method), dry_batch(method, views, step), parts, first, shared, more_flops
                )
        return Footprint(
            parameters=sum(p.numel() for p in trained),
            weights=bytes_of(method.parameters()) + bytes_of(method.buffers()),
            teachers=_size(momentum),
            gradients=bytes_of(trained),
            optimizer=optimizer_bytes,
            views=bytes_of(views),
            saved=saved,
            peak=max(live.peak, shared.peak),
            peak_without_gradients=max(live.peak_without_gradients, shared.peak),
            flops=flops.get_total_flops() + more_flops.get_total_flops(),
            sent=round(live.sent + first.sent),
            forward_passes=1 + two_passes + recomputes,
            teacher_weights=sum(bytes_of(weights) for module in momentum for _, weights in sharded_weights(module)),
            teacher_unit=max(map(_largest_unit, momentum), default=0),
            frozen_teachers=_size(teacher.module for teacher in method.frozen_teachers().values()),
        )


def _shared_loss(
    method: ComparingMethod, batch: Batch, parts: int, first: "_LiveBytes", shared: "_LiveBytes", flops: FlopCounterMode
) -> None:
    """Count the additional forward pass (`first` and `flops`) and the loss of the whole batch (`shared`)."""
    with torch.no_grad():
        targets = method.checked_targets(batch)
        method.prepare(batch.step)
        with first, flops:
            embeddings = method.checked_embed(batch).embeddings
        images = {name: parts * method.gather(name, x).shape[1] for name, x in (embeddings | targets).items()}
    with shared:
        whole = {name: x.new_empty(len(x), images[name], *x.shape[2:]) for name, x in (embeddings | targets).items()}
        for name in embeddings:
            whole[name].requires_grad_()
        method.checked_compare(whole, batch.step).loss.backward()


class _DryBatch(Batch):
    """A batch whose random numbers have shapes but no values."""

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.empty(len(self), *shape)

    def uniform_of_step(self, name: str, *shape: int) -> Tensor:
        return torch.empty(*shape)


def dry_batch(method: Method, views: list[Tensor], step: int) -> Batch:
    """A batch of these views, with labels, masks and parameters of the shapes that the method needs."""
    needs, n = method.needs, views[0].shape[1]
    masks = [torch.zeros(*v.shape[:2], *v.shape[-2:], dtype=torch.uint8) for v in views] if needs.masks else None
    classes = getattr(method, "classes", None)
    multi_hot = needs.labels == "multi_hot" and classes is not None
    labels = torch.zeros(n, classes, dtype=torch.uint8) if multi_hot else torch.zeros(n, dtype=torch.int64)
    return _DryBatch.from_views(
        views,
        masks=masks,
        labels=labels if needs.labels else None,
        step=step,
        items=torch.zeros(n, dtype=torch.int64),
        parameters=torch.zeros(n, getattr(method, "num_parameters", 1)) if needs.parameters else None,
    )


def optimizer_state(method: nn.Module, make_optimizer: MakeOptimizer) -> int:
    """Bytes of the optimizer's state, extrapolated from a real step on parameters of size 1.

    State tensors of their parameter's shape scale with it; others (a step count) do not.
    """
    real = [p for p in method.parameters() if p.requires_grad]
    tiny = {p: nn.Parameter(torch.ones([1] * p.ndim)) for p in real}
    groups = checked_groups(method) if isinstance(method, Method) else [ParameterGroup([("", p) for p in real])]
    small = [replace(group, parameters=[(n, tiny[p]) for n, p in group.parameters if p in tiny]) for group in groups]
    optimizer = grouped_optimizer(small, make_optimizer, 0.0)
    for p in tiny.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    total = 0
    for whole, p in tiny.items():
        for value in optimizer.state[p].values():
            if isinstance(value, Tensor):
                like = value.shape == p.shape and value.ndim > 0
                total += value.element_size() * (whole.numel() if like else value.numel())
    return total


class _Flops(FlopCounterMode):
    """FLOPs of all modules together: to count them by module, torch would keep tensors that are computed again alive."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _NoModules()


class _NoModules(AbstractContextManager):
    parents = ("Global",)

    def __exit__(self, *_: object) -> None:
        pass


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of live tensors that were created inside the block (current and peak), and those that collectives send.

    What an operation returns of the memory of a tensor from outside, such as a transposed weight, is not created.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__()
        self.now = self.peak = self.peak_without_gradients = self.gradients = 0
        self.sent, self.world_size, self.backward = 0.0, world_size, False
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = [value.untyped_storage() for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        self._known.update(given)
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            self.sent += _sent(func.__name__, args, self.world_size)
        # Autograd adds gradients of two paths in place, but not while a dispatch mode such as this is active.
        replaces = self.backward and func is torch.ops.aten.add.Tensor and isinstance(args[1], Tensor)
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage(), replaces)
        return result

    def gradient(self, parameter: nn.Parameter) -> None:
        """Called when this parameter's gradient has been computed."""
        self.gradients += bytes_of([parameter.grad])

    def _add(self, storage: torch.UntypedStorage, replaces: bool) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        weakref.finalize(storage, self._remove, size)
        self.now += size
        if not replaces:
            self.peak = max(self.peak, self.now)
            self.peak_without_gradients = max(self.peak_without_gradients, self.now - self.gradients)

    def _remove(self, size: int) -> None:
        self.now -= size


def _sent(name: str, args: tuple, world_size: int) -> float:
    """Bytes that one rank sends in a collective on a ring."""
    others = (world_size - 1) / world_size
    if name.startswith("allreduce_"):
        return 2 * others * bytes_of(tree_leaves(args[0]))
    if name.startswith("allgather_"):  # (outputs, inputs, …)
        return (world_size - 1) * bytes_of(tree_leaves(args[1]))
    if name.startswith("_reduce_scatter_base_"):  # (output, input, …)
        return others * bytes_of([args[1]])
    raise RuntimeError(f"the dry run cannot estimate the traffic of the collective {name}")


@contextmanager
def _ranks(world_size: int) -> Iterator[None]:
    """A process group whose other ranks are simulated, so that gathered tensors have their real shapes."""
    if world_size == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if torch.distributed.is_initialized():
        raise RuntimeError("a dry run of several ranks needs a process without a process group")
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _without_values(module: nn.Module) -> None:
    """Replace the module's tensors on the meta device by fake CPU tensors (FakeTensorMode)."""
    made: dict[int, Tensor] = {}  # tensors that modules share stay shared
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None and p.is_meta:
                fake = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), requires_grad=p.requires_grad)
                part._parameters[name] = made.setdefault(id(p), fake)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                part._buffers[name] = made.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype))


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(bytes_of(module.parameters()) + bytes_of(module.buffers()) for module in modules)


def _largest_unit(module: nn.Module) -> int:
    """Bytes of the most weights that `wildfern.ssl.models.sharded_module` gathers at a time."""
    return max((bytes_of(weights) for _, weights in sharded_weights(module)), default=0)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Size of some tensors in bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)
