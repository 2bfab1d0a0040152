"""Tiny ONNX files, written without the package onnx (field numbers of onnx.proto3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TYPES = {"float32": 1, "int64": 7, "uint8": 2}


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def number(field: int, value: int) -> bytes:
    return varint(8 * field) + varint(value)


def chunk(field: int, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return varint(8 * field + 2) + varint(len(content)) + content


def value_info(name: str, shape: Sequence[int | None], kind: str = "float32") -> bytes:
    dims = b"".join(chunk(1, chunk(2, f"free{i}") if size is None else number(1, size)) for i, size in enumerate(shape))
    return chunk(1, name) + chunk(2, chunk(1, number(1, TYPES[kind]) + chunk(2, dims)))


def tensor(name: str, array: NDArray, external: bool = False) -> bytes:
    dims = b"".join(number(1, size) for size in array.shape)
    kind = number(2, TYPES[array.dtype.name])
    return dims + kind + chunk(8, name) + (number(14, 1) if external else chunk(9, array.tobytes()))


def node(operation: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    message = b"".join(chunk(1, name) for name in inputs) + chunk(2, output) + chunk(3, output) + chunk(4, operation)
    for name, given in attributes.items():
        if isinstance(given, int):
            message += chunk(5, chunk(1, name) + number(3, given) + number(20, 2))
        else:
            message += chunk(5, chunk(1, name) + b"".join(number(8, one) for one in given) + number(20, 7))
    return message


def model(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], weights: Sequence[bytes] = ()
) -> bytes:
    graph = b"".join(chunk(1, one) for one in nodes) + chunk(2, "small") + b"".join(chunk(5, one) for one in weights)
    graph += b"".join(chunk(11, one) for one in inputs) + b"".join(chunk(12, one) for one in outputs)
    return number(1, 8) + chunk(7, graph) + chunk(8, number(2, 13))


def red_cells(height: int = 64, width: int = 64, layout: str = "channels first", free: bool = False) -> bytes:
    """A detector of red: each cell of 8 x 8 pixels is a box, whose score is the mean of max(red - green - blue, 0).

    `layout`: "channels first" is [1, 5, N], "channels last" [1, N, 5], "boxes" [1, N, 4], [1, N] and classes [1, N] that are 1
    for the upper half of the cells.
    """
    rows, columns = np.mgrid[: height // 8, : width // 8]
    count = rows.size
    x, y, side = 8 * columns.ravel() + 4, 8 * rows.ravel() + 4, np.full(count, 8)
    centers = np.stack([x, y, side, side]).astype(np.float32)[None]
    corners = np.stack([x - 4, y - 4, x + 4, y + 4], axis=1).astype(np.float32)[None]
    weights = [
        tensor("red", np.array([1, -1, -1], np.float32).reshape(1, 3, 1, 1)),
        tensor("flat", np.array([1, 1, count] if layout != "boxes" else [1, count], np.int64)),
        tensor("centers", centers),
        tensor("corners", corners),
        tensor("halves", (np.arange(count) < count // 2).astype(np.int64)[None]),
    ]
    nodes = [
        node("Conv", ["image", "red"], "redness"),
        node("Relu", ["redness"], "positive"),
        node("AveragePool", ["positive"], "cells", kernel_shape=[8, 8], strides=[8, 8]),
        node("Reshape", ["cells", "flat"], "scores"),
    ]
    outputs = {"channels first": [("joined", (1, 5, count))], "channels last": [("turned", (1, count, 5))]}.get(layout)
    if outputs:
        nodes += [node("Concat", ["centers", "scores"], "joined", axis=1)]
        nodes += [node("Transpose", ["joined"], "turned", perm=[0, 2, 1])] * (layout == "channels last")
        declared = [value_info(name, shape) for name, shape in outputs]
    else:
        nodes += [node("Identity", ["corners"], "boxes"), node("Identity", ["halves"], "classes")]
        declared = [
            value_info("boxes", (1, count, 4)),
            value_info("scores", (1, count)),
            value_info("classes", (1, count), "int64"),
        ]
    size = (None, 3, None, None) if free else (1, 3, height, width)
    return model(nodes, [value_info("image", size)], declared, weights)
