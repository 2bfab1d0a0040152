"""Texts of strangers in Markdown."""

import pytest

from wildfern.launch.markdown import plain


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('csv:pics (groups=["hospital", "animal"])', 'csv:pics (groups=["hospital", "animal"])'),
        ("[a](http://b)", "a(http://b)"),
        ("[a] [b]", "a b"),
        ("[a]: http://b", "a: http://b"),
        ("<b>`x`|y\\z", "bxyz"),
    ],
)
def test_brackets_stay_where_they_make_no_link(text, kept):
    assert plain(text) == kept
