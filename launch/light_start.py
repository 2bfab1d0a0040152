"""What torch, torchvision and timm import at once though a run rarely uses it, imported at its first use.

`torch._dynamo` (the front end of torch.compile) takes a second and is imported by an operation of torchvision, some networks of
timm and every optimizer, to call functions that do nothing unless something is compiled. wandb is imported by a function of timm.
For processes of wildfern's own commands only: other programs that import wildfern import these packages as usual.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"


def defer_imports() -> None:
    """From here on, `import torch._dynamo` and `import wandb` load these packages at their first use."""
    if DYNAMO not in sys.modules:
        sys.modules[DYNAMO] = _Dynamo(DYNAMO)
        sys.modules[f"{DYNAMO}.utils"] = _DynamoUtils(f"{DYNAMO}.utils")
    if "wandb" not in sys.modules and (spec := importlib.util.find_spec("wandb")) is not None:
        sys.modules["wandb"] = _Deferred("wandb")
        sys.modules["wandb"].__spec__ = spec


class _Deferred(ModuleType):
    """Stands for a package until something is used of it that it does not have itself."""

    def __getattr__(self, name: str) -> Any:
        if name in ("__file__", "__loader__", "__wrapped__"):  # inspect looks for these in all modules
            raise AttributeError(name)
        return getattr(_load(self.__name__), name)


def _load(name: str) -> ModuleType:
    """The package or module itself, which takes the place of what stands for it."""
    for module in [key for key in sys.modules if key.startswith(name.removesuffix(".utils"))]:
        if isinstance(sys.modules[module], _Deferred):
            del sys.modules[module]
    return importlib.import_module(name)


class _Dynamo(_Deferred):
    def graph_break(self, msg: str = "") -> None:
        """Nothing is compiled while this package is not loaded."""

    def disable(self, fn: Callable | None = None, recursive: bool = True, **options: Any) -> Callable:
        """The function itself until the package is loaded, and then what the package makes of it."""
        if fn is None:
            return functools.partial(self.disable, recursive=recursive, **options)

        @functools.wraps(fn)
        def call(*arguments: Any, **named: Any) -> Any:
            return target()(*arguments, **named)

        @functools.cache
        def disabled() -> Callable:
            return _load(DYNAMO).disable(fn, recursive, **options)

        def target() -> Callable:
            return fn if isinstance(sys.modules.get(DYNAMO), _Deferred) else disabled()

        return call


class _DynamoUtils(_Deferred):
    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # a module, not a package
            raise AttributeError(name)
        return super().__getattr__(name)

    def is_compile_supported(self, device_type: Any) -> Any:
        return _load(self.__name__).is_compile_supported(device_type)
