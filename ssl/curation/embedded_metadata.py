"""What an image file says of itself: author, rights, license, date, camera, and reservations against training.

Read from EXIF, XMP (ISO 16684), IPTC IIM, the text of a PNG and, for reservations, Content Credentials. Where they differ, XMP
goes before IPTC before EXIF. Coordinates are never copied. Not read: XMP that continues in further segments of a JPEG.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from PIL import Image, ImageFile, IptcImagePlugin

from wildfern.ssl.curation.opt_out import c2pa_reservation
from wildfern.ssl.curation.spdx import common_license, license_id

__all__ = ["EmbeddedMetadata", "embedded_metadata", "iso_date"]

_MOST_XMP = 2**20  # bytes
_MOST_ELEMENTS = 20_000
_MOST_DEPTH = 32
_MOST_CHARACTERS = 1_000  # of a field
_MOST_TEXTS = 64  # of a property

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_NAMES = {  # of XMP properties
    "{http://purl.org/dc/elements/1.1/}creator": "creator",
    "{http://purl.org/dc/elements/1.1/}rights": "rights",
    "{http://purl.org/dc/elements/1.1/}source": "source",
    "{http://purl.org/dc/elements/1.1/}subject": "keywords",
    "{http://purl.org/dc/terms/}license": "license",
    "{http://ns.adobe.com/xap/1.0/rights/}WebStatement": "statement",
    "{http://ns.adobe.com/xap/1.0/rights/}UsageTerms": "terms",
    "{http://creativecommons.org/ns#}license": "license",
    "{http://creativecommons.org/ns#}attributionName": "attribution",
    "{http://creativecommons.org/ns#}attributionURL": "attribution_url",
    "{http://web.resource.org/cc/}license": "license",
    "{http://ns.adobe.com/photoshop/1.0/}Credit": "credit",
    "{http://ns.adobe.com/photoshop/1.0/}DateCreated": "date",
    "{http://ns.adobe.com/photoshop/1.0/}Instructions": "instructions",
    "{http://ns.useplus.org/ldf/xmp/1.0/}DataMining": "data_mining",
    "{http://ns.adobe.com/exif/1.0/}DateTimeOriginal": "taken",
    "{http://ns.adobe.com/exif/1.0/}GPSLatitude": "latitude",
    "{http://ns.adobe.com/exif/1.0/}GPSLongitude": "longitude",
    "{http://ns.adobe.com/tiff/1.0/}Make": "make",
    "{http://ns.adobe.com/tiff/1.0/}Model": "model",
}
# EXIF
_MAKE, _MODEL, _ARTIST, _COPYRIGHT, _DETAILS, _GPS = 0x010F, 0x0110, 0x013B, 0x8298, 0x8769, 0x8825
_TAKEN, _TAKEN_OFFSET, _DIGITIZED, _XP_AUTHOR = 0x9003, 0x9011, 0x9004, 0x9C9D
# IPTC IIM
_KEYWORDS, _INSTRUCTIONS, _DATE, _BY_LINE, _CREDIT, _NOTICE = (2, 25), (2, 40), (2, 55), (2, 80), (2, 110), (2, 116)

_SPOKEN = ("rights", "terms", "keywords", "instructions", "comment")  # where people write noai
_NO_AI = re.compile(r"(?<![a-z])no-?(?:image)?ai(?![a-z])|\bno (?:generative )?ai training\b", re.IGNORECASE)
_PROHIBITED = re.compile(r"DMI-PROHIBITED[A-Z-]*")  # PLUS: prohibited, or in part, or but for what is said elsewhere
_WEB = re.compile(r"https?://[^\s<>\"']+")

Texts = dict[str, list[str]]


@dataclass(frozen=True)
class EmbeddedMetadata:
    """What was found, None for what was not; texts are on one line and of at most 1,000 characters.

    - license: SPDX id of what the fields name; None if they name none, or different ones. license_text: as found; where the
      fields differ, each of them. license_from: "xmp", "iptc", "exif", or "png".
    - date: ISO 8601, as precise as found. has_gps: there are coordinates, or a GPS block that cannot be read.
    - optout: a reservation against training, in words such as "plus:DataMining DMI-PROHIBITED-AIMLTRAINING".
    """

    author: str | None = None
    credit: str | None = None
    rights: str | None = None
    license: str | None = None
    license_text: str | None = None
    license_from: str | None = None
    date: str | None = None
    camera: str | None = None
    has_gps: bool = False
    optout: str | None = None
    source_url: str | None = None


def embedded_metadata(image: Image.Image, content: bytes | None = None) -> EmbeddedMetadata:
    """The metadata of an image as `Image.open` gives it, not a copy of it; its pixels are not decoded.

    - content: the bytes of its file, for Content Credentials; None: not looked for.

    Nothing is raised for any file: a block that is damaged, or an XMP of more than 1 MiB or with a DOCTYPE, has no fields.
    A reservation is each value of plus:DataMining from DMI-PROHIBITED on (also -GENAIMLTRAINING, which is for generative models
    only, and -EXCEPTSEARCHENGINEINDEXING), the words noai, noimageai and "no AI training", and those of `c2pa_reservation`.
    """
    blocks = {"xmp": _xmp(image), "iptc": _iptc(image), "exif": _exif(image), "png": _png(image)}
    xmp, iptc, exif, png = blocks.values()
    reserved = [found] if content is not None and (found := c2pa_reservation(content)) else []
    if not any(blocks.values()):
        return EmbeddedMetadata(optout=reserved[0] if reserved else None)
    for value in xmp.get("data_mining", []):
        reserved += [f"plus:DataMining {code}" for code in _PROHIBITED.findall(value)]
    for kind, block in blocks.items():
        words = {w.lower() for key in _SPOKEN for text in block.get(key, []) for w in _NO_AI.findall(text)}
        reserved += [f"{kind}: {word}" for word in sorted(words)]
    text, came_from, license = _license(blocks)
    return EmbeddedMetadata(
        author=_first(xmp, "creator", all_of=True)
        or _first(iptc, "creator", all_of=True)
        or _first(exif, "creator")
        or _first(xmp, "attribution")
        or _first(png, "creator"),
        credit=_first(xmp, "credit") or _first(iptc, "credit"),
        rights=_first(xmp, "rights") or _first(iptc, "rights") or _first(exif, "rights") or _first(png, "rights"),
        license=license,
        license_text=text,
        license_from=came_from,
        date=_first_date(
            [*exif.get("taken", []), *_of(xmp, "taken", "date"), *iptc.get("date", []), *png.get("date", [])]
        ),
        camera=_camera(exif) or _camera(xmp),
        has_gps="gps" in exif or "latitude" in xmp or "longitude" in xmp,
        optout="; ".join(dict.fromkeys(reserved)) or None,
        source_url=next(
            (
                address[0]
                for text in _of(xmp, "attribution_url", "source") + png.get("source", [])
                if (address := _WEB.match(text))
            ),
            None,
        ),
    )


def iso_date(text: str) -> str | None:
    """A date of EXIF, IPTC, XMP or ISO 8601 as ISO 8601: 2015, 2015-06, 2015-06-01T12:00:00+02:00; None for any other text.

    Fractions of a second are dropped.
    """
    found = re.fullmatch(
        r"(\d{4})(?:[-:]?(\d\d)(?:[-:]?(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?)?)?\s*(Z|[+-]\d\d:?\d\d)?",
        text.strip(),
    )
    if found is None:
        return None
    *numbers, zone = found.groups()
    year, month, day, hour, minute, second = (None if part is None else int(part) for part in numbers)
    try:
        datetime(
            year or 0, 1 if month is None else month, 1 if day is None else day, hour or 0, minute or 0, second or 0
        )
    except ValueError:
        return None
    date = "-".join(part for part in numbers[:3] if part)
    if hour is None:
        return date
    if zone and zone != "Z":
        zone = f"{zone[:3]}:{zone[-2:]}"
    return f"{date}T{':'.join(part for part in numbers[3:] if part)}{zone or ''}"


def _license(blocks: Mapping[str, Texts]) -> tuple[str | None, str | None, str | None]:
    """What is said of the license, where, and its id."""
    said = [
        (text, kind, license_id(text) if len(text) < _MOST_CHARACTERS else None)  # what was cut may limit it
        for kind, block in blocks.items()
        for text in _of(block, "license", "statement", "terms", "rights")
    ]
    named = [one for one in said if one[2]]
    license = common_license(one[2] for one in named)
    if license:
        return next(one for one in named if one[2] == license)
    if named:  # different ones
        return " | ".join(dict.fromkeys(one[0] for one in named))[:_MOST_CHARACTERS], named[0][1], None
    for kind, block in blocks.items():
        if text := _first(block, "license") or _first(block, "terms") or _first(block, "statement"):
            return text, kind, None
    return None, None, None


def _camera(block: Texts) -> str | None:
    make, model = _first(block, "make"), _first(block, "model")
    if make and model and not model.lower().startswith(make.split()[0].lower()):
        return f"{make} {model}"
    return model or make


def _of(block: Texts, *keys: str) -> list[str]:
    return [text for key in keys for text in block.get(key, [])]


def _first(block: Texts, key: str, all_of: bool = False) -> str | None:
    texts = block.get(key, [])
    return "; ".join(texts)[:_MOST_CHARACTERS] if all_of and texts else next(iter(texts), None)


def _first_date(texts: Iterable[str]) -> str | None:
    return next((date for text in texts if (date := iso_date(text))), None)


def _texts(**found: Any) -> Texts:
    """The fields that have a text, cleaned: on one line, without control characters, cut."""
    block = {}
    for key, values in found.items():
        texts = [_text(value) for value in (values if isinstance(values, list | tuple) else [values])]
        if texts := [text for text in texts if text]:
            block[key] = texts
    return block


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value[: 4 * _MOST_CHARACTERS]
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    if not isinstance(value, str):
        return ""
    value = re.sub(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+", " ", value[: 4 * _MOST_CHARACTERS]).strip()
    return value[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()


def _exif(image: Image.Image) -> Texts:
    if image.format != "TIFF" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        return {}
    found: dict[str, Any] = {}
    # Pillow raises almost anything for damaged EXIF; what was read until then counts.
    with suppress(Exception):
        exif = image.getexif()
        found["creator"] = [_ascii(exif.get(_ARTIST))]
        if not found["creator"][0] and isinstance(name := exif.get(_XP_AUTHOR), bytes):
            found["creator"] = [name.decode("utf-16-le", "replace")]
        # The photographer's notice, NUL, the editor's.
        found["rights"] = "; ".join(one.strip() for one in _ascii(exif.get(_COPYRIGHT)).split("\0") if one.strip())
        found["make"], found["model"] = _ascii(exif.get(_MAKE)), _ascii(exif.get(_MODEL))
        if _GPS in exif:
            found["gps"] = "present"
            if not set(exif.get_ifd(_GPS)) - {0}:  # only the version of the block: the camera knew no place
                del found["gps"]
        details = exif.get_ifd(_DETAILS)
        offset = _ascii(details.get(_TAKEN_OFFSET)).strip()
        taken = _ascii(details.get(_TAKEN)).strip("\0 ")
        with_offset = taken + offset if re.fullmatch(r"[+-]\d\d:\d\d", offset) else taken
        found["taken"] = [with_offset, _ascii(details.get(_DIGITIZED))]
    return _texts(**found)


def _ascii(value: Any) -> str:
    """Text of EXIF, which Pillow decodes as Latin-1 and which is UTF-8 more often."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return ""
    with suppress(UnicodeError):
        return value.encode("latin-1").decode()
    return value


def _iptc(image: Image.Image) -> Texts:
    if not isinstance(image, ImageFile.ImageFile) or (image.format != "TIFF" and "photoshop" not in image.info):
        return {}
    with suppress(Exception):  # as for EXIF
        found = IptcImagePlugin.getiptcinfo(image) or {}
        return _texts(
            creator=found.get(_BY_LINE),
            rights=found.get(_NOTICE),
            credit=found.get(_CREDIT),
            keywords=found.get(_KEYWORDS),
            instructions=found.get(_INSTRUCTIONS),
            date=found.get(_DATE),
        )
    return {}


def _png(image: Image.Image) -> Texts:
    """Texts before the pixels; and the comment of a JPEG or GIF."""
    info = image.info
    if image.format != "PNG":
        return _texts(comment=info["comment"]) if "comment" in info else {}
    texts = {key.lower(): value for key, value in info.items() if isinstance(key, str) and isinstance(value, str)}
    return _texts(
        creator=texts.get("author"),
        rights=texts.get("copyright"),
        license=texts.get("license") or texts.get("licence"),
        source=texts.get("source"),
        date=texts.get("creation time"),
        comment=[texts.get(key) for key in ("comment", "description", "disclaimer", "warning")],
    )


def _xmp(image: Image.Image) -> Texts:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if packet is None:  # before Pillow 11
        start = b"http://ns.adobe.com/xap/1.0/\0"
        packet = next((data[len(start) :] for _, data in getattr(image, "applist", ()) if data.startswith(start)), None)
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    if not isinstance(packet, bytes) or len(packet) > _MOST_XMP:
        return {}
    try:
        text = packet.decode("utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").strip("\0 \t\r\n")
        if "<!doctype" in text.lower():
            return {}
        reader = _XmpReader()
        parser = ElementTree.XMLParser(target=reader)
        parser.feed(text)
        parser.close()
    except (ValueError, LookupError, ElementTree.ParseError):
        return {}
    return _texts(**reader.found)


class _XmpReader:
    """Target of an XMLParser: keeps the texts of the properties in `_NAMES`, and no tree. Raises ValueError at its limits."""

    def __init__(self) -> None:
        self.found: Texts = {}
        self._depth = self._elements = 0
        self._description = -1  # depth of the rdf:Description in rdf:RDF; its properties are one deeper
        self._property: str | None = None
        self._text: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > _MOST_DEPTH or self._elements > _MOST_ELEMENTS:
            raise ValueError("too many elements")
        self._text.clear()
        if tag == f"{_RDF}RDF":
            self._description = self._depth + 1
        elif self._depth == self._description:
            for name, value in attributes.items():
                self._add(_NAMES.get(name), value)
        elif self._depth == self._description + 1:
            self._property = _NAMES.get(tag)
        if self._property and f"{_RDF}resource" in attributes:
            self._add(self._property, attributes[f"{_RDF}resource"])

    def data(self, text: str) -> None:
        if self._property:
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self._property:
            # Of the property itself, or of an item of its list; not of the fields of a structure.
            if self._depth == self._description + 1 or tag == f"{_RDF}li":
                self._add(self._property, "".join(self._text))
            self._text.clear()
            if self._depth == self._description + 1:
                self._property = None
        self._depth -= 1

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError("a DOCTYPE")

    def close(self) -> None:
        return None

    def _add(self, name: str | None, text: str) -> None:
        if name and text.strip() and len(texts := self.found.setdefault(name, [])) < _MOST_TEXTS:
            texts.append(text)
