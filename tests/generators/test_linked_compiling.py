"""Kernels whose inner functions are linked in: the results are numba's own, and the inner functions stay usable."""

import numpy as np
import pytest
from numba import njit, typeof
from numba.core.cpu import CPUContext

from wildfern.generators import STREAMS
from wildfern.generators.compiling import Kernel
from wildfern.generators.linked_compiling import linked_inner_functions


@njit
def smoothed(values, i):
    return 0.5 * values[i] + 0.25 * (values[i - 1] + values[i + 1])


@njit(fastmath=True)
def total(values):
    found = 0.0
    for i in range(1, values.size - 1):
        found += smoothed(values, i) ** 3
    return found


def work(values):
    if values.size < 3:
        raise ValueError("too short")
    return total(values) + smoothed(values, 1), np.zeros(3)


def compiled(function, *arguments):
    dispatcher = njit(function)
    with linked_inner_functions(dispatcher):
        dispatcher.compile(tuple(map(typeof, arguments)))
    return dispatcher


def test_results_are_those_of_numba_s_own_way():
    values = np.random.default_rng(0).normal(size=1001)
    linked = compiled(work, values)
    assert linked(values)[0] == pytest.approx(njit(work)(values)[0], rel=1e-12)
    np.testing.assert_array_equal(linked(values)[1], np.zeros(3))
    with pytest.raises(ValueError, match="too short"):
        linked(values[:2])


def test_inner_functions_are_compiled_anew_for_a_call_from_python_and_reused_by_another_kernel():
    values = np.random.default_rng(1).normal(size=64).astype(np.float32)
    signature = (typeof(values), typeof(1))
    compiled(work, values)
    assert signature not in smoothed.overloads
    assert smoothed(values, 3) == pytest.approx(smoothed.py_func(values, 3), rel=1e-6)
    callable_one = smoothed.overloads[signature]
    assert compiled(lambda v: total(v), values)(values) == pytest.approx(total.py_func(values), rel=1e-5)
    assert smoothed.overloads[signature] is callable_one


def test_numba_is_left_as_it_was():
    codegen, wrapper = njit(work).targetctx.codegen(), CPUContext.create_cpython_wrapper
    compiled(work, np.ones(5))
    assert "_library_class" not in vars(codegen)
    assert CPUContext.create_cpython_wrapper is wrapper


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_streams_name_the_kernels_of_their_first_batch(name, monkeypatch):
    called, call = set(), Kernel.__call__

    def noting(self, *arguments):
        called.add(self)
        return call(self, *arguments)

    monkeypatch.setattr(Kernel, "__call__", noting)
    STREAMS[name](size=32).batch(np.arange(1))
    assert called == set(STREAMS[name].kernels)
    assert not any(kernel.to_be_cached() for kernel in called)
