"""Author, rights, license, date and reservations in EXIF, XMP, IPTC IIM and PNG text."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from wildfern.ssl.curation.embedded_metadata import EmbeddedMetadata, embedded_metadata, iso_date

NAMESPACES = (
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" '
    'xmlns:cc="http://creativecommons.org/ns#" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
)


def packet(properties: str = "", attributes: str = "") -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {NAMESPACES} {attributes}>{properties}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>' + " " * 200
    ).encode()


def items(name: str, *texts: str, kind: str = "Alt") -> str:
    return f"<{name}><rdf:{kind}>{''.join(f'<rdf:li>{text}</rdf:li>' for text in texts)}</rdf:{kind}></{name}>"


def iim(*records: tuple[int, int, bytes]) -> bytes:
    return b"".join(struct.pack(">BBBH", 0x1C, record, number, len(text)) + text for record, number, text in records)


def encoded(format: str = "JPEG", iptc: bytes = b"", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(
        file, format, **options
    )
    content = file.getvalue()
    if iptc:
        resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
        segment = b"Photoshop 3.0\0" + resource
        content = content[:2] + b"\xff\xed" + struct.pack(">H", 2 + len(segment)) + segment + content[2:]
    return content


def read(content: bytes) -> EmbeddedMetadata:
    with Image.open(io.BytesIO(content)) as image:
        found = embedded_metadata(image, content)
        image.load()
        assert embedded_metadata(image, content) == found  # also when it is decoded
    return found


def exif(**tags: object) -> Image.Exif:
    block = Image.Exif()
    names = {"make": 0x010F, "model": 0x0110, "artist": 0x013B, "rights": 0x8298}
    for name, value in tags.items():
        if name in names:
            block[names[name]] = value
    details = {"taken": 0x9003, "offset": 0x9011}
    block.get_ifd(0x8769).update({details[name]: value for name, value in tags.items() if name in details})
    if "gps" in tags:
        block.get_ifd(0x8825).update(tags["gps"])
    return block


def test_plain_images_say_nothing():
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        assert read(encoded(format)) == EmbeddedMetadata()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif(format):
    block = exif(
        make="Canon",
        model="Canon EOS 5D",
        artist="Ada Lovelace",
        rights="(c) 2015 Ada, CC BY 2.0\0the editor's",
        taken="2015:06:01 12:30:05",
        offset="+02:00",
    )
    assert read(encoded(format, exif=block)) == EmbeddedMetadata(
        author="Ada Lovelace",
        rights="(c) 2015 Ada, CC BY 2.0; the editor's",
        license="CC-BY-2.0",
        license_text="(c) 2015 Ada, CC BY 2.0; the editor's",
        license_from="exif",
        date=None if format == "TIFF" else "2015-06-01T12:30:05+02:00",  # Pillow writes no nested block there
        camera="Canon EOS 5D",
    )


def test_coordinates_are_noticed_and_not_copied():
    place = {1: "N", 2: (47.0, 22.0, 11.0), 3: "E", 4: (8.0, 32.0, 30.0)}
    found = read(encoded(exif=exif(model="X100", gps=place)))
    assert found == EmbeddedMetadata(camera="X100", has_gps=True)
    assert not read(encoded(exif=exif(model="X100", gps={0: b"\2\3\0\0"}))).has_gps  # only the block's version
    found = read(encoded(xmp=packet(attributes='exif:GPSLatitude="47,22.1833N"')))
    assert found == EmbeddedMetadata(has_gps=True)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp(format):
    properties = (
        items("dc:creator", "Ada", "Grace", kind="Seq")
        + items("dc:rights", "© Ada", "(c) in another language")
        + '<cc:license rdf:resource="http://creativecommons.org/licenses/by-sa/2.0/"/>'
        + "<cc:attributionURL rdf:resource='https://example.org/photos/7'/>"
        + "<dc:description><rdf:Alt><rdf:li>CC BY-NC 4.0 noai</rdf:li></rdf:Alt></dc:description>"
    )
    options = {"xmp": packet(properties, 'photoshop:Credit="Agency" photoshop:DateCreated="2015-06" tiff:Model="X100"')}
    if format == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet(properties, 'photoshop:Credit="Agency"').decode())
    if format == "TIFF":
        options = {"tiffinfo": {700: packet(properties, 'photoshop:Credit="Agency"')}}
    found = read(encoded(format, **options))
    assert (found.author, found.credit, found.rights) == ("Ada; Grace", "Agency", "© Ada")
    assert (found.license, found.license_from) == ("CC-BY-SA-2.0", "xmp")
    assert found.license_text == "http://creativecommons.org/licenses/by-sa/2.0/"
    assert found.source_url == "https://example.org/photos/7"
    assert found.optout is None
    if format == "JPEG":
        assert (found.date, found.camera) == ("2015-06", "X100")


def test_iptc():
    block = iim(
        (2, 80, b"Ada"),
        (2, 80, b"Grace"),
        (2, 110, "Agentur für Bilder".encode()),
        (2, 116, "Ada, alle Rechte vorbehalten, Zürich".encode("latin-1")),
        (2, 55, b"20150601"),
    )
    assert read(encoded(iptc=block)) == EmbeddedMetadata(
        author="Ada; Grace",
        credit="Agentur für Bilder",
        rights="Ada, alle Rechte vorbehalten, Zürich",
        license="LicenseRef-all-rights-reserved",
        license_text="Ada, alle Rechte vorbehalten, Zürich",
        license_from="iptc",
        date="2015-06-01",
    )


def test_text_of_a_png():
    text = PngImagePlugin.PngInfo()
    for key, value in {
        "Author": "Ada",
        "Copyright": "CC0 1.0",
        "Source": "https://example.org/7",
        "Comment": "no AI training",
    }.items():
        text.add_text(key, value)
    assert read(encoded("PNG", pnginfo=text)) == EmbeddedMetadata(
        author="Ada",
        rights="CC0 1.0",
        license="CC0-1.0",
        license_text="CC0 1.0",
        license_from="png",
        source_url="https://example.org/7",
        optout="png: no ai training",
    )


def test_xmp_goes_before_iptc_before_exif():
    block = exif(artist="from exif", rights="from exif", taken="2015:06:01 12:30:05")
    records = iim((2, 80, b"from iptc"), (2, 110, b"credit of iptc"), (2, 116, b"from iptc"))
    assert read(encoded(exif=block, iptc=records)).author == "from iptc"
    found = read(encoded(exif=block, iptc=records, xmp=packet(items("dc:creator", "from xmp", kind="Seq"))))
    assert (found.author, found.credit, found.rights) == ("from xmp", "credit of iptc", "from iptc")


@pytest.mark.parametrize(
    ("in_xmp", "in_exif", "license"),
    [
        ('xmpRights:WebStatement="http://creativecommons.org/licenses/by/2.0/"', "CC BY", "CC-BY-2.0"),
        ('xmpRights:WebStatement="http://creativecommons.org/licenses/by/2.0/"', "© Ada", "CC-BY-2.0"),
        ('xmpRights:WebStatement="http://creativecommons.org/licenses/by/2.0/"', "Ada, all rights reserved", None),
        ('xmpRights:UsageTerms="Attribution License"', "CC BY-SA 4.0", None),
    ],
)
def test_fields_that_name_different_licenses_name_none(in_xmp, in_exif, license):
    found = read(encoded(xmp=packet(attributes=in_xmp), exif=exif(rights=in_exif)))
    assert found.license == license
    assert found.license_from == "xmp"
    assert (in_exif in found.license_text) == (license is None)  # both, to be read by a person


def test_what_may_be_a_license_is_kept_as_found():
    found = read(encoded(xmp=packet(attributes='xmpRights:WebStatement="https://example.org/terms"')))
    assert (found.license, found.license_text, found.license_from) == (None, "https://example.org/terms", "xmp")
    long = "CC BY 4.0 " + "and so on " * 200 + "not for commercial use"
    found = read(encoded(xmp=packet(items("xmpRights:UsageTerms", long))))
    assert found.license is None
    assert found.license_text == long[:1000]


@pytest.mark.parametrize(
    ("value", "reserved"),
    [
        ("DMI-UNSPECIFIED", False),
        ("DMI-ALLOWED", False),
        ("DMI-PROHIBITED", True),
        ("DMI-PROHIBITED-AIMLTRAINING", True),
        ("DMI-PROHIBITED-GENAIMLTRAINING", True),
        ("DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING", True),
        ("DMI-PROHIBITED-SEECONSTRAINT", True),
        ("DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR", True),
        ("DMI-PROHIBITED-SEELINKEDRIGHTSEXPR", True),
    ],
)
def test_the_plus_vocabulary_for_data_mining(value, reserved):
    address = f"http://ns.useplus.org/ldf/vocab/{value}"
    words = f"plus:DataMining {value}" if reserved else None
    assert read(encoded(xmp=packet(attributes=f'plus:DataMining="{address}"'))).optout == words
    assert read(encoded(xmp=packet(f"<plus:DataMining>{address}</plus:DataMining>"))).optout == words
    assert read(encoded(xmp=packet(f'<plus:DataMining rdf:resource="{address}"/>'))).optout == words


def test_reservations_in_words_and_in_content_credentials():
    assert read(encoded(xmp=packet(items("dc:rights", "noai, NoImageAI")))).optout == "xmp: noai; xmp: noimageai"
    assert read(encoded(xmp=packet(items("dc:subject", "dog", "no-ai", kind="Bag")))).optout == "xmp: no-ai"
    assert read(encoded(iptc=iim((2, 25, b"noai"), (2, 25, b"dog")))).optout == "iptc: noai"
    assert read(encoded(exif=exif(rights="Noaillon, Paris"))).optout is None
    assert read(encoded(xmp=packet(items("dc:creator", "Noai", kind="Seq")))).optout is None  # a name

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    label = box(b"jumd", bytes(16) + b"\3cawg.training-mining\0")
    chunk = b"caBX" + box(b"jumb", label + box(b"json", b'{"entries": {"cawg.ai_training": {"use": "notAllowed"}}}'))
    plain = encoded("PNG")
    content = plain[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
    assert read(content) == EmbeddedMetadata(optout="C2PA: ai_training notAllowed")
    with Image.open(io.BytesIO(content)) as image:
        assert embedded_metadata(image) == EmbeddedMetadata()  # its bytes were not given


@pytest.mark.parametrize(
    "xmp",
    [
        b"<x:xmpmeta",
        b"\xff\xfe\x00",
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + packet(items("dc:creator", "Ada", kind="Seq")),
        packet(items("dc:creator", "&unknown;", kind="Seq")),
        packet(items("dc:creator", "Ada", kind="Seq") + "<a>" * 100 + "</a>" * 100),
        packet(items("dc:creator", "Ada", kind="Seq") + "<a/>" * 20_000),
        packet(items("dc:creator", "Ada", kind="Seq")).replace(b"Ada", b"\xc3("),
    ],
)
def test_a_damaged_or_hostile_xmp_has_no_fields_and_hides_no_other_block(xmp):
    with Image.open(io.BytesIO(encoded(exif=exif(artist="Grace")))) as image:
        image.info["xmp"] = xmp
        assert embedded_metadata(image).author == "Grace"


def test_an_xmp_over_its_limit_is_not_read():
    with Image.open(io.BytesIO(encoded())) as image:
        image.info["xmp"] = packet(items("dc:creator", "Ada", kind="Seq"))
        assert embedded_metadata(image).author == "Ada"
        image.info["xmp"] += b" " * 2**20
        assert embedded_metadata(image).author is None


def test_texts_are_on_one_line_clean_and_cut():
    found = read(encoded(exif=exif(artist="Ada\n\tLovelace\x1b[2J \x7f", rights="x" * 5000)))
    assert found.author == "Ada Lovelace [2J"
    assert found.rights == "x" * 1000
    written = encoded(exif=exif(artist="Zo##", rights="all r#"))  # Pillow writes ASCII only
    written = written.replace(b"Zo##", "Zoë".encode()).replace(b"all r#", "Zürich".encode("latin-1"))
    assert (read(written).author, read(written).rights) == ("Zoë", "Zürich")  # UTF-8, else Latin-1
    assert read(encoded(exif=exif(artist=" \0 "))).author is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_no_damage_raises():
    generator = random.Random(0)
    records = iim((2, 80, b"Ada"), (2, 116, b"CC BY 2.0"), (2, 25, b"noai"))
    whole = encoded(
        iptc=records,
        exif=exif(
            make="Canon", artist="Ada", rights="CC BY 2.0", taken="2015:06:01 12:30:05", gps={2: (1.0, 2.0, 3.0)}
        ),
        xmp=packet(items("dc:creator", "Ada", kind="Seq")),
    )
    end = whole.index(b"\xff\xdb")
    opened = same = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(generator.randrange(1, 6)):
            damaged[generator.randrange(22, end)] = generator.randrange(256)
        try:
            image = Image.open(io.BytesIO(damaged))
        except Exception:  # no image any more
            continue
        opened += 1
        same += embedded_metadata(image, bytes(damaged)).author == "Ada"
    assert 500 < same < opened


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2015:06:01 12:30:05", "2015-06-01T12:30:05"),
        ("2015-06-01T12:30:05.123+0200", "2015-06-01T12:30:05+02:00"),
        ("2015-06-01 12:30:05.0", "2015-06-01T12:30:05"),
        ("2015-06-01T12:30Z", "2015-06-01T12:30Z"),
        ("20150601", "2015-06-01"),
        ("2015-06", "2015-06"),
        (" 1843 ", "1843"),
        ("0000:00:00 00:00:00", None),
        ("2015-13-01", None),
        ("2015-02-30", None),
        ("June 2015", None),
        ("1433160000", None),
        ("", None),
    ],
)
def test_dates(text, date):
    assert iso_date(text) == date
