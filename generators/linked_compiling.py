"""Compile a kernel's inner functions for linking only: optimized once, as a part of the kernel, and not callable from Python.

numba optimizes each function alone, and again inside each of its callers up to the kernel, and emits machine code and two
wrappers for each. That is half of the time to compile a kernel, and only the kernel's own code is ever run.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.cpu import CPUContext
from numba.core.dispatcher import Dispatcher

_lock = threading.Lock()
#: Overloads of inner functions that were compiled for linking, reused by the next kernel.
_linkable: dict[Any, dict[tuple, Any]] = {}


class _LinkedLibrary(JITCodeLibrary):
    """The code of an inner function, as numba generates it: its caller links it in and optimizes the whole."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> "_Codegen":
        return _Codegen()


class _Codegen:
    def set_env(self, name: str, environment: object) -> None:
        """There is no machine code whose environment could be set."""


class _InnerFunctions(event.Listener):
    """Notes the functions that this thread compiles."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, tuple]] = []
        self._thread = threading.get_ident()

    def on_start(self, event: event.Event) -> None:
        pass

    def on_end(self, event: event.Event) -> None:
        if threading.get_ident() == self._thread:
            self.found.append((event.data["dispatcher"], tuple(event.data["args"])))


@contextmanager
def linked_inner_functions(kernel: Dispatcher) -> Iterator[None]:
    """Inside the block, what this thread compiles for `kernel` is linked into it; results are those of numba's own way."""
    target: Any = kernel.targetctx
    codegen = target.codegen()  # made before the block, with its own libraries
    inner = _InnerFunctions()
    with _lock, _numba_replaced(codegen, kernel.py_func.__qualname__):
        event.register("numba:compile", inner)
        for dispatcher, overloads in _linkable.items():
            for signature, compiled in overloads.items():
                dispatcher.overloads.setdefault(signature, compiled)
        try:
            yield
        finally:
            event.unregister("numba:compile", inner)
            _take_back(kernel, inner.found)


@contextmanager
def _numba_replaced(codegen: Any, kernel: str) -> Iterator[None]:
    """Inside the block, this thread makes linked libraries of all functions but `kernel`, and no wrappers for them."""
    context: Any = CPUContext
    thread, plain = threading.get_ident(), codegen._library_class
    wrap_python, wrap_c = context.create_cpython_wrapper, context.create_cfunc_wrapper

    def library(codegen: Any, name: str) -> JITCodeLibrary:
        ours = threading.get_ident() == thread and name != kernel
        return (_LinkedLibrary if ours else plain)(codegen, name)

    vars(library)["_unserialize"] = plain._unserialize  # how a kernel is loaded from the cache

    def python_wrapper(context: Any, library: JITCodeLibrary, *arguments: Any, **named: Any) -> None:
        if not isinstance(library, _LinkedLibrary):
            wrap_python(context, library, *arguments, **named)

    def c_wrapper(context: Any, library: JITCodeLibrary, *arguments: Any, **named: Any) -> None:
        if threading.get_ident() != thread:
            wrap_c(context, library, *arguments, **named)

    codegen._library_class = library
    context.create_cpython_wrapper, context.create_cfunc_wrapper = python_wrapper, c_wrapper
    try:
        yield
    finally:
        context.create_cpython_wrapper, context.create_cfunc_wrapper = wrap_python, wrap_c
        del codegen._library_class  # that of the class is seen again


def _take_back(kernel: Dispatcher, found: list[tuple[Any, tuple]]) -> None:
    """A call from Python compiles an inner function anew, as one that can be called."""
    for dispatcher, signature in found:
        compiled = dispatcher.overloads.get(signature)
        if dispatcher is not kernel and compiled is not None and not dispatcher.targetoptions.get("no_cpython_wrapper"):
            _linkable.setdefault(dispatcher, {})[signature] = compiled
    for dispatcher, overloads in _linkable.items():
        linked = set(map(id, overloads.values()))
        callable_ones = [compiled for compiled in dispatcher.overloads.values() if id(compiled) not in linked]
        dispatcher._reset_overloads()
        for compiled in callable_ones:
            dispatcher.add_overload(compiled)
