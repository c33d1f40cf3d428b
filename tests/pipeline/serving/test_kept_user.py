"""A user's record, to bytes and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.kept_user import KeptUser, key_of

TEXT = st.text(max_size=20)
EVENTS = st.lists(st.tuples(TEXT, st.none() | st.integers(0, 2**40)), max_size=8).map(tuple)


@given(TEXT, st.integers(0, 99), st.binary(max_size=300), EVENTS, st.lists(TEXT).map(tuple))
def test_comes_back_as_it_was(schema, added, state, events, event_ids):
    user = KeptUser(schema, added, state, events, event_ids)
    assert KeptUser.from_bytes(user.to_bytes()) == user


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(content):
    with pytest.raises(ValueError, match="no record of a user"):
        KeptUser.from_bytes(content)


def test_a_cut_record_is_refused():
    whole = KeptUser("s", 0, bytes(50), (("a", 1),), ()).to_bytes()
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="no record of a user"):
            KeptUser.from_bytes(whole[:end])


@given(TEXT, TEXT, TEXT, TEXT)
def test_two_users_never_share_a_key(domain, user, other_domain, other_user):
    same = (domain, user) == (other_domain, other_user)
    assert (key_of(domain, user) == key_of(other_domain, other_user)) == same
    assert len(key_of(domain, user)) == 64
