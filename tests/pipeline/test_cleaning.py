from collections import Counter

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cleaning import k_core

pairs = st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef")), max_size=40)


def one_by_one(events, user_events, item_events):
    """The specification: remove one faulty event after another."""
    events = list(events)
    while True:
        users, items = Counter(u for u, _ in events), Counter(i for _, i in events)
        faulty = [e for e in events if users[e[0]] < user_events or items[e[1]] < item_events]
        if not faulty:
            return sorted(events)
        events.remove(faulty[0])


@given(pairs, st.integers(1, 4), st.integers(1, 4))
def test_the_k_core_is_what_removing_one_by_one_leaves(events, users, items):
    table = pl.DataFrame(events, schema={"user_id": pl.String, "item_id": pl.String}, orient="row")
    left, rounds = k_core(table, user_events=users, item_events=items)
    assert (rounds == 0) == (left.height == table.height)
    assert sorted(left.rows()) == one_by_one(events, users, items)


def test_one_removal_may_bring_down_all():
    events = [("u", "a"), ("u", "b"), ("v", "b"), ("v", "c"), ("w", "c"), ("w", "d")]
    table = pl.DataFrame(events, schema=["user_id", "item_id"], orient="row")
    left, rounds = k_core(table, user_events=2, item_events=2)
    assert left.height == 0
    assert rounds == 2
