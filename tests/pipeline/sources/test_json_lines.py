import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.json_lines import first_objects, json_pieces, object_decoder

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
decode = object_decoder()


def in_python_2(value):
    """The value as Python 2 would print it: ASCII, and a `u` before every text."""
    match value:
        case str():
            return f"u{value!a}"
        case dict():
            inside = (f"{in_python_2(key)}: {in_python_2(item)}" for key, item in value.items())
            return f"{{{', '.join(inside)}}}"
        case list():
            return f"[{', '.join(map(in_python_2, value))}]"
        case _:
            return repr(value)


@given(st.dictionaries(texts, values, max_size=3))
def test_a_dict_is_read_as_python_or_json_prints_it(record):
    for line in (repr(record), ascii(record), in_python_2(record), json.dumps(record)):
        assert decode(line) == record


@pytest.mark.parametrize(
    "line",
    [
        "{u'a': __import__('os').getcwd()}",
        "{u'a': 1 + 1}",
        "{u'a': u'b' u'c'}",
        "{u'a': b'c'}",
        "{u'a': {1, 2}}",
        "{1: 2}",
        "{u'a': nan}",
        "{u'a': NaN}",
        "{u'a': u'it's'}",
        r"{u'a': u'\N{BULLET}'}",
        r"{u'a': u'\U00110000'}",
        "{u'a': u'open}",
        "{u'a': u'" + "\\'" * 200_000,
        "{u'a': u'" + "\\'" * 200_000 + "\\",
        "{u'a': " * 100_000,
        "[" * 100_000,
        "-" * 100_000 + "1",
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_plain_dict_is_refused(line):
    with pytest.raises((ValueError, RecursionError)):
        decode(line)


def test_only_a_caller_that_asks_for_it_reads_python(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("{u'a': u'x'}\n" + '{"a": "y"}\n')
    strict, either = (
        next(json_pieces(file, {"b": "a"}, decode=given)).slow() for given in (None, decode)
    )
    assert [(row.line, row.reason) for row in strict.rejected] == [
        (1, "is not a JSON object of texts and numbers")
    ]
    assert strict.rows["b"].to_list() == ["y"]
    assert either.rows["b"].to_list() == ["x", "y"]
    assert either.rejected == ()
    assert first_objects(file) == [{"a": "x"}, {"a": "y"}]
