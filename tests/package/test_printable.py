import pytest

from wildfern.printable import encodable, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x08\x7f\x9b31m", r"a\rb\x08\x7f\x9b31m"),
        ("first\nsecond\u2028third", r"first\nsecond\u2028third"),
        ("cod.\u202egnp.exe\u2066", r"cod.\u202egnp.exe\u2066"),
        ("\udcff.png", r"\udcff.png"),
        ("no\u200bthing\ufeff", r"no\u200bthing\ufeff"),
        ("Größe 図 é e\u0301 👩‍🔬 العربية x² [bold]", "Größe 図 é e\u0301 👩‍🔬 العربية x² [bold]"),
    ],
)
def test_characters_that_a_terminal_obeys_are_escaped_and_others_stay(text, shown):
    assert printable(text) == shown


def test_lines_may_stay_lines():
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


def test_characters_that_an_encoding_lacks_are_replaced():
    assert encodable("3 × 4 · 5 … ü", "ascii") == r"3 x 4 | 5 ... \xfc"
    assert encodable("ü ×", "latin-1") == "ü ×"
    assert encodable("ü ×", None) == "ü ×"
    assert encodable("×", "no-such-encoding") == "x"
