import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.string_table import StringTable

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=10)


@given(texts)
def test_a_table_is_its_strings_in_memory_and_on_disk(tmp_path_factory, strings):
    path = tmp_path_factory.mktemp("strings") / "a.arrow"
    table = StringTable.of(strings)
    table.save(path)
    for each in (
        table,
        StringTable.open(path),
        StringTable.of(pl.Series(strings, dtype=pl.String)),
    ):
        assert list(each) == strings
        assert [each[place] for place in range(len(each))] == strings
        assert each[1:-1] == strings[1:-1]
        assert each.digest() == table.digest()


def test_a_place_outside_raises():
    table = StringTable.of(["a", "b"])
    assert table[-1] == "b"
    for place in (2, -3):
        with pytest.raises(IndexError):
            table[place]


def test_the_digest_knows_where_strings_end():
    assert StringTable.of(["ab", "c"]).digest() != StringTable.of(["a", "bc"]).digest()
