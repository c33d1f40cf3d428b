import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.text import cut_text, normalise_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("AT&T, R&D &copyright", "AT&T, R&D &copyright"),
        ("It&#39;s &quot;new&quot;&nbsp;now", 'It\'s "new" now'),
        ("one<br/>two<p>three</p>", "one two three"),
        ("H<sub>2</sub>O <b>now</b>", "H2O now"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("3 < 5 and 7 > 2, I <3 it", "3 < 5 and 7 > 2, I <3 it"),
        ("x<script>var a = '<b>';</script>y<!-- c -->z", "x y z"),
        ("  a \t b\r\n\u00a0c\u2003d ", "a b c d"),
        ("zero\u200bwidth\x07", "zerowidth"),
        ("cafe\u0301", "caf\u00e9"),
        ("", ""),
    ],
)
def test_texts_read_as_people_would(raw, clean):
    assert normalise_text(raw) == clean


@given(st.text(st.sampled_from("ab<>/&;#lgtx12 \n\u0301e\u200b"), max_size=40) | st.text())
def test_normalising_twice_changes_nothing(raw):
    clean = normalise_text(raw)
    assert normalise_text(clean) == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert clean == " ".join(clean.split())


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [("one two three", 8, "one two"), ("one two", 7, "one two"), ("onetwo", 3, "one"),
     ("one two", 3, "one"), ("", 5, "")],
)  # fmt: skip
def test_a_text_is_cut_at_a_space(text, limit, cut):
    assert cut_text(text, limit) == cut
