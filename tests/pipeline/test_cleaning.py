from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.k_core import k_core
from pipeline.shards import Shard

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


def sharded(folder, events, n_shards=1):
    """The events in shards, the users dealt out in turn."""
    users = sorted({user for user, _ in events})
    shards = []
    for number in range(n_shards):
        mine = users[number::n_shards]
        rows = [[item for user, item in events if user == one] for one in mine]
        if mine:
            items = np.array([ord(item) - ord("a") for row in rows for item in row], dtype=np.int32)
            lengths = np.array([len(row) for row in rows], dtype=np.int64)
            keys = pl.Series(mine, dtype=pl.String)
            shards.append(Shard.write(folder / f"{number}", keys, lengths=lengths, items=items))
    return shards


def left_in(shards):
    """The events that the shards still hold."""
    found = []
    for shard in shards:
        users = np.repeat(np.array(list(shard.keys())), shard.column("lengths"))
        kept = shard.column("kept")
        items = [chr(ord("a") + item) for item in shard.column("items")[kept]]
        found += zip(users[kept].tolist(), items, strict=True)
    return sorted(found)


@given(pairs, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_the_k_core_is_what_removing_one_by_one_leaves(
    tmp_path_factory, events, users, items, n_shards
):
    shards = sharded(tmp_path_factory.mktemp("shards"), events, n_shards)
    counts, rounds = k_core(shards, user_events=users, item_events=items)
    left = left_in(shards)
    assert left == one_by_one(events, users, items)
    assert (rounds == 0) == (len(left) == len(events))
    expected = Counter(item for _, item in left)
    assert counts.tolist() == [expected[chr(ord("a") + code)] for code in range(len(counts))]


def test_one_removal_may_bring_down_all(tmp_path):
    events = [("u", "a"), ("u", "b"), ("v", "b"), ("v", "c"), ("w", "c"), ("w", "d")]
    counts, rounds = k_core(sharded(tmp_path, events), user_events=2, item_events=2)
    assert counts.sum() == 0
    assert rounds == 2
