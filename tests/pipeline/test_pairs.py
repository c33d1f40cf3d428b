from itertools import pairwise

import numpy as np
import pytest

from pipeline.pairs import PairsConfig, next_item_pairs
from pipeline.row_keys import person_key
from pipeline.splits import SplitConfig, assign_roles

ALL = PairsConfig(held_out_users=0.3, max_held_out=None)


def chains(domain: str, people: range, length: int = 5):
    """Each person walks along the domain's items from a place of their own."""
    return [(f"u{n}", f"{domain}{(n + step) % 9}", 10 * step + n % 7)
            for n in people for step in range(length)]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(domain_of, merge):
    timed = [domain_of(name, chains(name, people)) for name, people in
             (("a", range(60)), ("b", range(30, 50)))]  # fmt: skip
    return merge([*timed, domain_of("c", chains("c", range(40, 60)), order="sequence")])


def described(corpus, pairs):
    return {
        (
            corpus.user_keys[int(user)],
            corpus.domains[domain].name,
            corpus.item_ids[int(first)],
            corpus.item_ids[int(second)],
        )
        for user, domain, first, second in zip(
            pairs.users, pairs.domains, pairs.first, pairs.second, strict=True
        )
    }


def test_pairs_are_consecutive_train_events_of_one_user_and_domain(corpus):
    roles = assign_roles(corpus, SplitConfig())
    train, held_out = next_item_pairs(corpus, roles, ALL, seed=0)
    expected = set()
    for user, key in enumerate(corpus.user_keys):
        for number, domain in enumerate(corpus.domains):
            row = [
                corpus.item_ids[int(corpus.items[e])]
                for e in range(*corpus.offsets[user : user + 2])
                if corpus.event_domains[e] == number and roles[e] == 0
            ]
            expected |= {(key, domain.name, a, b) for a, b in pairwise(row)}
    found = described(corpus, train), described(corpus, held_out)
    assert found[0] | found[1] == expected
    assert len(train) + len(held_out) == len(expected)
    assert len(train) > len(held_out) > 0


def test_the_pairs_of_some_domains_can_be_left_out_of_tuning(corpus):
    roles = assign_roles(corpus, SplitConfig())
    some = ALL.model_copy(update={"domains": ("b", "c")})
    train, held_out = next_item_pairs(corpus, roles, some, seed=0)
    every, held_out_of_all = next_item_pairs(corpus, roles, ALL, seed=0)
    expected = {pair for pair in described(corpus, every) if pair[1] != "a"}
    assert described(corpus, train) == expected
    assert described(corpus, held_out) == described(corpus, held_out_of_all)


def test_nobody_is_on_both_sides_whichever_row_they_have(corpus):
    train, held_out = next_item_pairs(corpus, assign_roles(corpus, SplitConfig()), ALL, seed=0)
    sides = [{person_key(corpus.user_keys[int(u)]) for u in p.users} for p in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 60


def test_limits_hold_for_each_domain_and_keep_the_same_pairs(corpus):
    roles = assign_roles(corpus, SplitConfig())
    some = PairsConfig(held_out_users=0.3, max_train=10, max_held_out=4)
    all_pairs = next_item_pairs(corpus, roles, ALL, seed=0)
    for limited, whole, most in zip(
        next_item_pairs(corpus, roles, some, seed=0), all_pairs, (10, 4), strict=True
    ):
        assert np.bincount(limited.domains, minlength=3).max() <= most
        assert np.bincount(limited.domains, minlength=3).min() > 0
        assert described(corpus, limited) < described(corpus, whole)


def test_an_item_is_never_its_own_next(domain_of, merge):
    bare = [("u", item, 0) for item in "ppqqp"]
    corpus = merge([domain_of("a", bare, order="sequence")])
    parts = next_item_pairs(corpus, np.zeros(5, dtype=np.int8), ALL, seed=0)
    found = [pair[2:] for part in parts for pair in described(corpus, part)]
    assert sorted(found) == [("p", "q"), ("q", "p")]


def test_adding_a_domain_moves_nobody(corpus, domain_of, merge):
    alone = merge([domain_of("a", chains("a", range(60)))])
    for more, fewer in zip(
        next_item_pairs(corpus, assign_roles(corpus, SplitConfig()), ALL, seed=3),
        next_item_pairs(alone, assign_roles(alone, SplitConfig()), ALL, seed=3),
        strict=True,
    ):
        in_a = {pair for pair in described(corpus, more) if pair[1] == "a"}
        assert in_a == described(alone, fewer)


def test_another_seed_holds_out_others(corpus):
    roles = assign_roles(corpus, SplitConfig())
    one, two = (next_item_pairs(corpus, roles, ALL, seed=seed)[1] for seed in (0, 1))
    assert set(one.users) != set(two.users)


def test_whole_histories_keep_all_pairs_of_a_person_or_none(corpus):
    roles = assign_roles(corpus, SplitConfig())
    some = PairsConfig(held_out_users=0.3, max_train=10)
    limited, _ = next_item_pairs(corpus, roles, some, seed=0, whole_histories=True)
    whole, _ = next_item_pairs(corpus, roles, ALL, seed=0)
    for domain in range(3):
        kept, all_of = (p.users[p.domains == domain] for p in (limited, whole))
        assert len(kept) == min(10, len(all_of))
        cut = [user for user in set(kept) if (kept == user).sum() < (all_of == user).sum()]
        assert len(cut) <= 1
