import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.coding import Coding


@given(st.lists(st.lists(st.text(max_size=3, alphabet="ab\x00é日:%"), max_size=20), max_size=5))
def test_codes_are_dense_and_lead_back_to_the_strings(batches):
    coding = Coding()
    coded = [(batch, coding.codes(pl.Series(batch, dtype=pl.String))) for batch in batches]
    strings = coding.strings().to_list()
    assert len(strings) == len(coding) == len(set(strings))
    assert set(strings) == {string for batch in batches for string in batch}
    for batch, codes in coded:
        assert [strings[code] for code in codes] == batch


def test_what_has_no_string_has_no_code():
    with pytest.raises(AssertionError):
        Coding().codes(pl.Series([None, "a"], dtype=pl.String))
