"""DeepSpeed behind the engine interface: any number of processes and nodes, ZeRO stages 0 to 3, gloo or NCCL."""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from wildfern.ssl.methods.base import Method
from wildfern.ssl.methods.batch import Batch, Metrics, Output, checked_output
from wildfern.ssl.models import synchronize_batch_norm
from wildfern.ssl.models.sharded_module import gathered, part_of, shard
from wildfern.ssl.training.engine import MakeOptimizer, Precision
from wildfern.ssl.training.long_timeout_group import long_timeout_group, make_long_timeout_group
from wildfern.ssl.training.online_evaluation import OnlineEvaluation
from wildfern.ssl.training.optimizer_groups import counted_keys
from wildfern.ssl.training.optimizers import is_layer_wise, set_hyperparameters
from wildfern.ssl.training.parameter_groups import method_optimizer, own_optimizers
from wildfern.ssl.training.restoring import restore
from wildfern.ssl.training.sharded_state import StateShard, collect_shard
from wildfern.ssl.training.state_layout import ReplicatedLayout
from wildfern.ssl.training.whole_state import collect
from wildfern.ssl.training.zero_shards import ZeroLayout

T = TypeVar("T")

# DeepSpeed and batch normalization over ranks call them: the versions of torch before 2.14 have no other names.
DEPRECATED = ("reduce_scatter_tensor", "all_gather_into_tensor")


def start_processes(device_type: str, timeout_minutes: float) -> tuple[int, int, int]:
    """Join the process group of the launcher's variables, or a group of one; returns (rank, local rank, world size)."""
    if not os.environ.get("RANK"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update(alone)
    if device_type != "cuda":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    for name in DEPRECATED:
        warnings.filterwarnings("ignore", rf"`torch\.distributed\.{name}` is deprecated", FutureWarning)
    import deepspeed

    if device_type != "cuda":  # otherwise DeepSpeed would compile an inference op with g++
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if device_type == "cuda" else "gloo"
    try:
        deepspeed.init_distributed(backend, timeout=timedelta(minutes=timeout_minutes), verbose=False)
        make_long_timeout_group(timedelta(minutes=timeout_minutes))
    except RuntimeError as error:
        raise ValueError(not_all_connected(timeout_minutes, error)) from error
    return int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])


def not_all_connected(timeout_minutes: float, error: Exception) -> str:
    """The message for processes of the launcher's variables that did not meet in time."""
    place = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    return (
        f"rank {place['RANK']} on host {socket.gethostname()} could not connect to all {place['WORLD_SIZE']} processes at "
        f"{place['MASTER_ADDR']} port {place['MASTER_PORT']} within {timeout_minutes:g} minutes: start the command on "
        "every host, with the address and a free port of the first host; if hosts have several networks, set "
        f"GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the one between them ({str(error).splitlines()[0]})"
    )


class DeepSpeedEngine:
    """Trains to the same numbers as `TorchEngine`, on any number of processes.

    Weights and gradient reduction stay in float32; `precision="bf16"` autocasts the forward pass. Batch normalization runs
    over all ranks. At ZeRO stage 3 momentum teachers are sharded too, outside DeepSpeed; frozen ones are whole on every rank.
    """

    def __init__(
        self,
        method: Method,
        make_optimizer: MakeOptimizer,
        weight_decay: float,
        *,
        optimizer_name: str,
        device: torch.device,
        precision: Precision,
        micro_batch_size: int,
        accumulation: int = 1,
        gradient_clip: float | None = None,
        zero_stage: Literal[0, 1, 2, 3] = 1,
        skip_nonfinite: bool = False,
        probe: OnlineEvaluation | None = None,
    ) -> None:
        import deepspeed

        names = list(dict.fromkeys([optimizer_name, *own_optimizers(method)]))
        layer_wise = [name for name in names if is_layer_wise(name)]
        if zero_stage > 0 and layer_wise:
            raise ValueError(
                f"{layer_wise[0]} computes norms per layer, but ZeRO stage {zero_stage} flattens and splits the layers: "
                "set engine.zero_stage=0"
            )
        self.method, self.device, self.zero_stage = method, device, zero_stage
        self.skip_nonfinite, self.probe, self.precision = skip_nonfinite, probe, precision
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.metadata = {"engine": "deepspeed", "world_size": self.world_size, "zero_stage": zero_stage}
        if self.world_size > 1:
            for module in (method, *method.teachers().values()):
                synchronize_batch_norm(module)
        settings = {
            "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": gradient_clip or 0.0,
            "zero_optimization": {"stage": zero_stage, "reduce_bucket_size": 50_000_000},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**62,
        }
        if precision == "bf16":  # without a list of modules, so that gradients are reduced in float32
            settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        optimizer = method_optimizer(method, make_optimizer, weight_decay)
        if zero_stage == 3 and (counted := counted_keys(optimizer)):
            raise ValueError(
                f"{' or '.join(names)} counts steps in its parameter groups ({', '.join(counted)}), which ZeRO stage 3 "
                "steps once for each: set engine.zero_stage to 2 or less"
            )
        self._compute: Callable[[], Any] | None = None
        self._forward, method.forward = method.forward, self._computed
        self.engine, self.optimizer, *_ = deepspeed.initialize(model=method, optimizer=optimizer, config=settings)
        if zero_stage == 3 and self.world_size > 1:
            for teacher in method.teachers().values():
                shard(teacher, self.rank, self.world_size)
        self.layout = (
            ZeroLayout(method, self.optimizer, zero_stage, self.gather)
            if zero_stage > 0
            else ReplicatedLayout(method, optimizer, self.gather, self.rank, self.world_size)
        )

    def __call__(self, batch: Batch) -> Output:
        def forward() -> tuple[Tensor, Metrics, Tensor | None, Tensor | None]:
            output = checked_output(self._forward(batch), f"{type(self.method).__name__}.forward()", batch)
            return output.loss, output.metrics, output.features, output.embeddings

        return Output(*self.run(forward))

    def run(self, compute: Callable[[], T]) -> T:
        self._compute = compute
        return self.engine()

    def _computed(self) -> Any:
        """What the module's forward pass is for DeepSpeed, whose hooks find tensors only in tuples and dictionaries."""
        compute, self._compute = self._compute, None
        return compute()

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # also called per micro-batch, for DeepSpeed's count; weights change only after the last

    def step(self, learning_rate: float, weight_decay: float, freeze: bool = False) -> Tensor:
        norm = self._whole_gradient_norm() if self.zero_stage == 0 else None
        if self.skip_nonfinite and norm is not None and not norm.isfinite():
            self.engine.zero_grad()  # from stage 1 on DeepSpeed does this itself
            self.engine.micro_steps += 1
            return norm
        set_hyperparameters(self.optimizer, learning_rate, weight_decay, freeze)
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm() if norm is None else norm)

    def _whole_gradient_norm(self) -> Tensor:
        """Clip here, since DeepSpeed does not at stage 0 in float32; gradients are already averaged over ranks."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.method.parameters() if p.grad is not None])

    def gather(self, parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
        """Parameters whole inside the `with` block (they are sharded between ranks at stage 3)."""
        parameters = list(parameters)
        if self.zero_stage < 3:
            return nullcontext()
        import deepspeed

        with ExitStack() as stack:
            stack.enter_context(gathered(parameters))
            theirs = [p for p in parameters if part_of(p) is None]
            stack.enter_context(deepspeed.zero.GatheredParameters(theirs, enabled=bool(theirs)))
            return stack.pop_all()

    def snapshot(self) -> dict[str, Tensor]:
        return collect(self.method, self.layout, self.probe)

    def shard(self) -> StateShard:
        return collect_shard(self.method, self.layout, self.probe)

    def load(self, folder: Path) -> None:
        restore(folder, self.method, self.layout, self.probe)

    def mean(self, scalars: Metrics) -> dict[str, float]:
        values = torch.stack([torch.as_tensor(v, dtype=torch.float64).to(self.device) for v in scalars.values()])
        torch.distributed.all_reduce(values)
        return dict(zip(scalars, (values / self.world_size).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        if self.world_size == 1:
            return flag
        flags = torch.tensor([int(flag)], device=self.device)
        torch.distributed.all_reduce(flags)
        return bool(flags.item())

    def barrier(self) -> None:
        torch.distributed.barrier(group=long_timeout_group())

    def close(self) -> None:
        self.engine.destroy()
        torch.distributed.destroy_process_group()
