"""Bytes near to valid files: parts overwritten, inserted, removed, repeated, and what parsers stumble over put in."""

from hypothesis import strategies as st

NUMBERS = [
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"-Infinity",
    b"9" * 400,
    b"9" * 5000,
    b"18446744073709551616",
    b"1.5",
    b"true",
]
TEXTS = [b'"\\ud800"', b'"\\u0000"', b'"\xc3"', b'"\xe2\x80\xae"', b'"../../x"', b'"/dev/zero"', b"null", b'""']
NESTED = [b"[" * 40, b"[" * 5000, b'{"a":' * 2000, b"[[[]]]", b"{}", b"[]"]
BINARY = [b"\0" * 8, b"\xff" * 8, b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xda"]
YAML = [
    b"&a [*a]",
    b"*a",
    b"&a ",
    b"<<: ",
    b"!!python/name:os.system ",
    b"!!binary ",
    b"? ",
    b"- " * 50,
    b"---\n",
    b"\t",
    b"%",
]
STUMBLES = [*NUMBERS, *TEXTS, *NESTED, *BINARY]


@st.composite
def near(draw: st.DrawFn, seeds: list[bytes], stumbles: list[bytes] = STUMBLES, most: int = 4) -> bytes:
    """One of the seeds with up to `most` changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        change = draw(st.integers(0, 5))
        if change == 0:
            data[at:to] = draw(st.binary(max_size=16))
        elif change == 1:
            data[at:to] = draw(st.sampled_from(stumbles))
        elif change == 2:
            data[at:at] = draw(st.sampled_from(stumbles))
        elif change == 3:
            del data[at:to]
        elif change == 4:
            data[at:at] = data[at:to] * draw(st.integers(1, 4))
        else:
            del data[at:]
    return bytes(data)


@st.composite
def json_values(draw: st.DrawFn, stumbles: bool = True) -> object:
    """A JSON value of any form, as Python objects."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    if stumbles:
        scalars |= st.sampled_from([10**400, -1, 2**63, "\ud800", "\x1b[31m", "[/red]", "<script>", "../../x"])
    containers = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
    return draw(containers)


@st.composite
def changed_documents(draw: st.DrawFn, document: object) -> object:
    """A JSON document of which up to three values, at any depth, are replaced by others of any form, or removed."""
    for _ in range(draw(st.integers(1, 3))):
        document = _changed(draw, document)
    return document


def _changed(draw: st.DrawFn, value: object) -> object:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 7)):
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: _changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _changed(draw, value[at]), *value[at + 1 :]]
    return draw(json_values())
