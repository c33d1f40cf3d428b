import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.coding import Coding
from pipeline.coding_kernels import number, put_again
from pipeline.string_table import string_bytes


@given(st.lists(st.lists(st.text(max_size=3, alphabet="ab\x00é日:%"), max_size=20), max_size=5))
def test_codes_are_dense_and_lead_back_to_the_strings(batches):
    coding = Coding()
    coded = [(batch, coding.codes(pl.Series(batch, dtype=pl.String))) for batch in batches]
    strings = coding.strings().to_list()
    assert len(strings) == len(coding) == len(set(strings))
    assert set(strings) == {string for batch in batches for string in batch}
    for batch, codes in coded:
        assert [strings[code] for code in codes] == batch


def test_many_strings_of_many_lengths_keep_their_numbers_as_the_table_grows():
    coding = Coding()
    strings = [f"{n}" * (n % 7) for n in range(20_000)]
    first = np.concatenate(
        [coding.codes(pl.Series(strings[k : k + 3_000])) for k in range(0, 20_000, 3_000)]
    )
    held = coding.strings()
    assert held[first].to_list() == strings
    assert len(coding) == len(set(strings))
    assert np.array_equal(coding.codes(pl.Series(strings)), first)
    assert held.to_list() == coding.strings().to_list()


def test_strings_that_differ_after_their_first_bytes_or_in_length_alone_have_numbers_of_their_own():
    coding = Coding()
    roots = ["", "a" * 7, "a" * 8, "a" * 14, "a" * 15, "a" * 16, "a" * 254, "a" * 255, "a" * 256]
    strings = [
        root + end for root in roots for end in ("", "\x00", "b", "bb", "b" * 300, "b" * 301)
    ]
    codes = coding.codes(pl.Series(strings))
    assert codes.tolist() == list(range(len(strings)))
    assert np.array_equal(coding.codes(pl.Series(strings)), codes)
    assert coding.strings().to_list() == strings


@given(st.lists(st.text(max_size=18, alphabet="ab"), max_size=30), st.integers(0, 3))
def test_equal_hashes_do_no_harm(strings, bits):
    """The table alone, with hashes of so few bits that most are equal, all at its last places."""
    ends, given_bytes = string_bytes(pl.Series(strings, dtype=pl.String))
    hashes = np.array([2**32 - 1 - (len(s) & bits) for s in strings], dtype=np.uint64)
    places, codes = np.zeros((64, 3), dtype=np.uint64), np.empty(len(strings), dtype=np.int32)
    starts, held = np.zeros(40, dtype=np.int64), np.empty(600, dtype=np.uint8)
    count = number(hashes, ends, given_bytes, 26, places, starts, held, 0, codes)
    order = list(dict.fromkeys(strings))
    assert count == len(order)
    assert codes.tolist() == [order.index(string) for string in strings]
    larger = np.zeros((256, 3), dtype=np.uint64)
    put_again(places, 24, larger)
    again = np.empty_like(codes)
    assert number(hashes, ends, given_bytes, 24, larger, starts, held, count, again) == count
    assert np.array_equal(again, codes)


def test_what_has_no_string_has_no_code():
    with pytest.raises(AssertionError):
        Coding().codes(pl.Series([None, "a"], dtype=pl.String))
