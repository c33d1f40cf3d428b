import numpy as np
import pytest

from item_llm import ItemPairs, next_item_pairs
from item_llm.pairs import PairSampler, pairs_of_texts


def test_pairs_are_consecutive_events_within_a_row():
    offsets = np.array([0, 3, 3, 4, 8])  # rows of 3, 0, 1 and 4 events
    items = np.array([0, 5, 1, 2, 7, 7, 3, 6])
    pairs = next_item_pairs(offsets, items, np.array([0, 4, 8]))
    assert list(zip(pairs.source, pairs.target, pairs.domain, strict=True)) == [
        (0, 5, 1),
        (5, 1, 0),
        (7, 3, 0),  # 7 after 7 is no pair
        (3, 6, 1),
    ]


def test_an_empty_last_row_and_no_rows_give_no_pairs():
    starts = np.array([0, 4])
    assert len(next_item_pairs(np.array([0, 1, 1]), np.array([3]), starts)) == 0
    assert len(next_item_pairs(np.array([0]), np.array([], dtype=np.int64), starts)) == 0


def test_items_with_equal_or_no_text_are_not_told_apart():
    texts = ["a", "", "b", " a ", "unused"]
    pairs = ItemPairs(np.array([0, 0, 0, 2, 3]), np.array([1, 2, 3, 3, 2]), np.zeros(5, np.int64))
    kept, distinct = pairs_of_texts(pairs, texts)
    assert distinct == ["a", "b"]
    assert list(zip(kept.source, kept.target, strict=True)) == [(0, 1), (1, 0), (0, 1)]


def test_pairs_outside_the_texts_raise():
    pairs = ItemPairs(np.array([0]), np.array([7]), np.array([0]))
    with pytest.raises(ValueError, match="item 7, but there are 2 texts"):
        pairs_of_texts(pairs, ["a", "b"])


def test_batches_depend_on_seed_and_number_alone():
    domain = np.repeat([0, 1], [1000, 100])
    sampler, again = (PairSampler(domain, 16, 2.0, seed=3) for _ in range(2))
    late = sampler.batch(9)
    assert np.array_equal(late, again.batch(9))
    assert not np.array_equal(late, again.batch(10))
    assert not np.array_equal(late, PairSampler(domain, 16, 2.0, seed=4).batch(9))


def test_a_batch_has_one_domain_and_small_domains_are_drawn_more_than_their_share():
    domain = np.repeat([0, 1], [6400, 100])
    batches = [PairSampler(domain, 32, 2.0, seed=0).batch(k) for k in range(900)]
    assert all(len(np.unique(domain[b])) == 1 and len(np.unique(b)) == 32 for b in batches)
    small = np.mean([domain[b[0]] == 1 for b in batches])
    assert abs(small - 10 / 90) < 0.03  # sqrt(100) : sqrt(6400); its share of pairs is 1 / 65


def test_a_domain_smaller_than_a_batch_repeats_pairs():
    assert len(PairSampler(np.zeros(3), 8, 1.0, seed=0).batch(0)) == 8


def test_no_pairs_raise():
    with pytest.raises(ValueError, match="no training pairs"):
        PairSampler(np.array([]), 8, 1.0, seed=0)
