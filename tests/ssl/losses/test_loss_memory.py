"""Losses over N images never hold N² numbers, neither in the forward nor for the backward pass."""

from functools import partial

import pytest
import torch
from loss_cases import CASES, unit, whole_info_nce, whole_ntxent, whole_queue_info_nce, whole_rbf

from wildfern.benchmarks.peak_memory import peak_bytes
from wildfern.ssl.losses.nearest import nearest

IMAGES, QUEUE, DIM = 2048, 8192, 8
CPU = torch.device("cpu")
MATRIX = 4 * IMAGES**2  # bytes of one N × N matrix of float32
VIEWS = {
    **{
        "NT-Xent": 5,
        "InfoNCE": 2,
        "InfoNCE with a queue": 2,
        "CACR": 5,
        "CACR, maximum of a softmax": 3,
        "CACR, uniform": 5,
    },
    **{"CACR, RBF": 4, "momentum CACR": 3, "momentum CACR, euclidean": 2, "queue CACR": 3, "SEED": 2, "KoLeo": 2},
}


def measured(loss, inputs):
    """Peak bytes of a forward and backward pass, and the bytes that autograd saves between them."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor  # kept alive, so that its address is not reused
        return tensor

    def step():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = loss(*inputs)
        value.backward()

    peak = peak_bytes(step, CPU)
    return peak, sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("case", VIEWS)
def test_all_tensors_of_a_step_are_smaller_than_one_matrix_of_pairs(case):
    inputs = CASES[case].inputs(VIEWS[case], IMAGES, QUEUE, DIM, torch.float32)
    peak, saved = measured(CASES[case].loss, inputs)
    assert peak < MATRIX
    assert saved <= 12 * max(x.untyped_storage().nbytes() for x in inputs)


def test_the_nearest_of_many_keys_is_found_without_their_products():
    q, k = (unit(n, DIM, dtype=torch.float32) for n in (IMAGES, QUEUE))
    assert peak_bytes(lambda: nearest(q, k), CPU) < MATRIX


@pytest.mark.parametrize(
    ("whole", "shapes"),
    [
        (partial(whole_ntxent, temperature=0.1), (2, IMAGES)),
        (partial(whole_info_nce, temperature=0.1), (IMAGES, IMAGES)),
        (partial(whole_queue_info_nce, temperature=0.1), (IMAGES, IMAGES, QUEUE)),
        (whole_rbf, (2, IMAGES)),
    ],
)
def test_whole_matrices_would_be_detected(whole, shapes):
    one = (
        [unit(*shapes, DIM, dtype=torch.float32)]
        if shapes[0] == 2
        else [unit(n, DIM, dtype=torch.float32) for n in shapes]
    )
    peak, saved = measured(whole, [x.requires_grad_() for x in one])
    assert peak > 2 * MATRIX
    assert saved > MATRIX
