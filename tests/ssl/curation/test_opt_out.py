"""C2PA's training-and-data-mining assertion in image files, one of them as c2pa-rs writes it."""

import io
import json
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from wildfern.ssl.curation.opt_out import c2pa_reservation

# Box of the assertion in a file signed by c2pa-rs 0.91: CBOR, a label with a private box (toggles 0x13) behind it.
SIGNED = bytes.fromhex(
    "000000ef6a756d62000000466a756d6463626f7200110010800000aa00389b7113636177672e747261696e696e672d6d696e696e670000000018"
    "633273689bfb05a23e4c4e1c28f22182831f8b51000000a163626f72a167656e7472696573a4781b636177672e61695f67656e65726174697665"
    "5f747261696e696e67a1637573656a6e6f74416c6c6f77656471636177672e61695f696e666572656e6365a16375736567616c6c6f7765647063"
    "6177672e61695f747261696e696e67a1637573656a6e6f74416c6c6f77656470636177672e646174615f6d696e696e67a1637573656b636f6e73"
    "747261696e6564"
)
SIGNED_WORDS = "C2PA: ai_generative_training notAllowed, ai_training notAllowed, data_mining constrained"


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def superbox(label: str, *boxes: bytes) -> bytes:
    return box(b"jumb", box(b"jumd", bytes(16) + b"\x03" + label.encode() + b"\0") + b"".join(boxes))


def store(*assertions: bytes, padding: int = 0) -> bytes:
    """A manifest store; `padding` bytes of another assertion come first, as of a thumbnail."""
    thumbnail = superbox("c2pa.thumbnail.claim", box(b"bidb", bytes(padding)))
    claim = superbox("c2pa.claim.v2", box(b"cbor", b"\xa0"))
    return superbox("c2pa", superbox("urn:c2pa:1", superbox("c2pa.assertions", thumbnail, *assertions), claim))


def assertion(entries: dict, label: str = "c2pa.training-mining") -> bytes:
    return superbox(label, box(b"json", json.dumps({"entries": entries}).encode()))


def image(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file, format)
    return file.getvalue()


def in_jpeg(block: bytes, part: int = 65_000) -> bytes:
    plain = image("JPEG")
    segments = b""
    for number, start in enumerate(range(8, len(block), part), start=1):
        content = b"JP" + struct.pack(">HI", 7, number) + block[:8] + block[start : start + part]
        segments += b"\xff\xeb" + struct.pack(">H", 2 + len(content)) + content
    return plain[:20] + segments + plain[20:]  # behind APP0


def in_png(block: bytes) -> bytes:
    plain = image("PNG")
    chunk = b"caBX" + block
    return plain[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]


def in_webp(block: bytes) -> bytes:
    body = image("WEBP")[8:] + b"C2PA" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def in_heif(block: bytes) -> bytes:
    uuid = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    return (
        box(b"ftyp", b"avifmif1")
        + box(b"uuid", uuid + bytes(4) + b"manifest\0" + bytes(8) + block)
        + box(b"mdat", bytes(9))
    )


@pytest.mark.parametrize("padding", [0, 200_000])  # in several segments of a JPEG
@pytest.mark.parametrize("within", [in_jpeg, in_png, in_webp, in_heif])
def test_a_signed_assertion_is_found_in_each_format(within, padding):
    content = within(store(SIGNED, padding=padding))
    if within is not in_heif:
        assert Image.open(io.BytesIO(content)).size == (64, 48)
    assert c2pa_reservation(content) == SIGNED_WORDS
    assert c2pa_reservation(within(store(padding=padding))) is None


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_plain_image_reserves_nothing(format):
    assert c2pa_reservation(image(format)) is None


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"c2pa.ai_training": {"use": "notAllowed"}}, "C2PA: ai_training notAllowed"),
        ({"cawg.data_mining": {"use": "constrained", "constraint_info": "ask"}}, "C2PA: data_mining constrained"),
        ({"c2pa.ai_training": {"use": "allowed"}, "c2pa.data_mining": {"use": "allowed"}}, None),
        ({"c2pa.ai_inference": {"use": "notAllowed"}}, None),
        ({"c2pa.ai_training": "notAllowed", "x": [], "c2pa.data_mining": {"use": []}}, None),
        ({"c2pa.\x1b[2Jtraining": {"use": "notAllowed"}}, None),
    ],
)
def test_which_entries_count(entries, words):
    assert c2pa_reservation(in_jpeg(store(assertion(entries)))) == words
    assert c2pa_reservation(in_png(store(assertion(entries, "cawg.training-mining__2")))) == words
    assert c2pa_reservation(in_png(store(assertion(entries, "org.example.training-mining")))) is None


def test_entries_of_all_manifests_of_the_file_count():
    first = assertion({"c2pa.data_mining": {"use": "notAllowed"}})
    second = assertion({"cawg.ai_training": {"use": "constrained"}}, "cawg.training-mining")
    assert c2pa_reservation(in_png(store(first, second))) == "C2PA: ai_training constrained, data_mining notAllowed"


def test_a_damaged_assertion_says_nothing_and_does_not_hide_another():
    damaged = superbox("c2pa.training-mining", box(b"json", b'{"entries": {"c2pa.ai_training": {"use": "notAll'))
    assert c2pa_reservation(in_png(store(damaged))) is None
    assert c2pa_reservation(in_png(store(damaged, SIGNED))) == SIGNED_WORDS
    endless = superbox("c2pa.training-mining", box(b"cbor", b"\x9b" + b"\xff" * 8))  # an array of 2^64 - 1 values
    nested = superbox("c2pa.training-mining", box(b"cbor", b"\x81" * 100_000 + b"\x01"))
    assert c2pa_reservation(in_png(store(endless, nested, SIGNED))) == SIGNED_WORDS
    deep = SIGNED
    for _ in range(500):
        deep = superbox("x", deep)
    assert c2pa_reservation(in_png(deep)) is None


def test_no_content_raises():
    generator = random.Random(0)
    words = set()
    for within in (in_jpeg, in_png, in_webp, in_heif):
        whole = within(store(SIGNED, assertion({"c2pa.ai_training": {"use": "notAllowed"}})))
        at = whole.index(b"training-mining")
        for _ in range(500):
            damaged = bytearray(whole)
            for _ in range(generator.randrange(1, 9)):
                damaged[generator.randrange(max(0, at - 300), min(len(whole), at + 600))] = generator.randrange(256)
            words.add(c2pa_reservation(bytes(damaged[: generator.choice([None, generator.randrange(len(whole))])])))
    assert {None, SIGNED_WORDS} <= words
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\0\0\0\0ftyp"):
        for _ in range(100):
            assert c2pa_reservation(start + generator.randbytes(generator.randrange(60))) is None
