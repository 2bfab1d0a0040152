"""What an ONNX file declares of its inputs and outputs, read without the package onnx, and models with fixed shapes made free.

An ONNX file is one protocol-buffer message. The numbers of fields are those of onnx.proto3: a ModelProto has its graph in field
7, a GraphProto has initializers in 5, inputs in 11, outputs in 12 and shapes of intermediate values in 13.
"""

from collections.abc import Iterator
from typing import NamedTuple

FLOAT = 1  # TensorProto.DataType
_GRAPH, _INITIALIZER, _INPUT, _OUTPUT, _INTERMEDIATE = 7, 5, 11, 12, 13
_EXTERNAL = 1  # TensorProto.DataLocation


class Value(NamedTuple):
    """An input or output: its name, the number of its data type, its shape with None for what is free, or None."""

    name: str
    element: int
    shape: tuple[int | None, ...] | None


class Graph(NamedTuple):
    """`external`: some weights are in a second file."""

    inputs: list[Value]
    outputs: list[Value]
    external: bool


def read_graph(model: bytes) -> Graph:
    """Inputs (without those that have a value in the file) and outputs, in order. Raises ValueError for what is no ONNX file."""
    parts = list(_fields(_graph(model)))
    tensors = [dict(_fields(_message(value))) for number, value in parts if number == _INITIALIZER]
    given = {_text(tensor.get(8, b"")) for tensor in tensors}
    values = {
        kind: [_value(_message(value)) for number, value in parts if number == kind] for kind in (_INPUT, _OUTPUT)
    }
    if not values[_OUTPUT]:
        raise ValueError("its graph has no outputs")
    return Graph(
        inputs=[value for value in values[_INPUT] if value.name not in given],
        outputs=values[_OUTPUT],
        external=any(tensor.get(14) == _EXTERNAL for tensor in tensors),
    )


def with_free_sizes(model: bytes) -> bytes:
    """The model for batches, heights and widths other than those it was exported with.

    Of the declared shapes of inputs and outputs, [N, C, H, W], only C is kept. Weights are no longer listed as inputs, which old
    exporters do and which keeps onnxruntime from fusing layers. Raises ValueError like `read_graph`.
    """
    free = {value.name: value for value in read_graph(model).inputs}
    graph = bytearray()
    for number, value in _fields(_graph(model)):
        if number == _INTERMEDIATE:
            continue
        if number in (_INPUT, _OUTPUT):
            declared = _value(_message(value))
            if number == _INPUT and declared.name not in free:
                continue
            value = _declaration(declared)
        graph += _field(number, value)
    return b"".join(_field(number, bytes(graph) if number == _GRAPH else value) for number, value in _fields(model))


def _graph(model: bytes) -> memoryview:
    graphs = [value for number, value in _fields(model) if number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError("it has no graph")
    return _message(graphs[0])


def _value(message: memoryview) -> Value:
    """Of a ValueInfoProto: name = 1, type = 2; there tensor_type = 1; there elem_type = 1, shape = 2; there dim = 1, repeated."""
    info = dict(_fields(message))
    tensor = dict(_fields(_message(dict(_fields(_message(info.get(2, b"")))).get(1, b""))))
    shape = None
    if 2 in tensor:
        dims = [dict(_fields(_message(dim))) for number, dim in _fields(_message(tensor[2])) if number == 1]
        sizes = [_number(dim.get(1, 0)) for dim in dims]
        shape = tuple(size if 0 < size < 2**31 else None for size in sizes)  # 0 and -1 are written for free ones too
    return Value(_text(info.get(1, b"")), _number(tensor.get(1, 0)), shape)


def _declaration(value: Value) -> bytes:
    tensor = _field(1, value.element)
    if value.shape is not None:
        dims = (
            _field(1, size) if axis == 1 and size is not None else _field(2, f"axis{axis}".encode())
            for axis, size in enumerate(value.shape)
        )
        tensor += _field(2, b"".join(_field(1, dim) for dim in dims))
    return _field(1, value.name.encode("utf-8", "surrogateescape")) + _field(2, _field(1, tensor))


class _Fixed(bytes):
    """A number of 4 or 8 bytes."""


_Content = int | bytes | memoryview | _Fixed  # bytes and memoryview: a text, a message, or many numbers


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, _Content]]:
    """Numbers and contents of the fields (https://protobuf.dev/programming-guides/encoding)."""
    view = memoryview(message)
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            integer, at = _varint(view, at)
            yield number, integer
            continue
        if wire == 2:
            size, at = _varint(view, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("it is no protocol-buffer message")
        if size > len(view) - at:
            raise ValueError("it is cut off")
        yield number, (view[at : at + size] if wire == 2 else _Fixed(view[at : at + size]))
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("it is cut off")
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is no protocol-buffer message")


def _field(number: int, value: _Content) -> bytes:
    if isinstance(value, int):
        return _encoded(number << 3) + _encoded(value)
    if isinstance(value, _Fixed):
        return _encoded(number << 3 | (1 if len(value) == 8 else 5)) + value
    return _encoded(number << 3 | 2) + _encoded(len(value)) + bytes(value)


def _encoded(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def _message(value: _Content) -> memoryview:
    if isinstance(value, int | _Fixed):
        raise ValueError("it is no ONNX model")
    return memoryview(value)


def _text(value: _Content) -> str:
    return bytes(_message(value)).decode("utf-8", "surrogateescape")


def _number(value: _Content) -> int:
    if not isinstance(value, int):
        raise ValueError("it is no ONNX model")
    return value
