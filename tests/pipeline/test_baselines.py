import numpy as np
import polars as pl
import pytest
import torch

from pipeline import baselines
from pipeline.baselines import WEEK, ItemKNNScorer
from pipeline.corpus import Corpus, DomainInfo
from pipeline.histories import TEST, TRAIN, evaluation_cases
from pipeline.string_table import StringTable

DAY = WEEK // 7


def corpus_of(rows: list[list[tuple[int, int]]], *, order="time", sizes=(5,)) -> Corpus:
    """Rows of (global item, time); domains called d0, d1 .. of the given sizes."""
    starts = np.cumsum([0, *sizes])
    events = [event for row in rows for event in row]
    names = [f"d{i}" for i in range(len(sizes))]
    return Corpus(
        domains=tuple(
            DomainInfo(name, int(start), size, order, "shop", "made up")
            for name, start, size in zip(names, starts, sizes, strict=False)
        ),
        item_ids=StringTable.of(pl.Series([f"i{i}" for i in range(starts[-1])])),
        texts=StringTable.of(pl.Series([""] * starts[-1])),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        items=np.array([item for item, _ in events], np.int32),
        timestamps=np.array([time for _, time in events], np.int64),
        user_keys=StringTable.of(pl.Series([f"shop:u{i}" for i in range(len(rows))])),
    )


def last_is_test(corpus: Corpus) -> np.ndarray:
    roles = np.full(corpus.n_events, TRAIN, np.int8)
    roles[corpus.offsets[1:] - 1] = TEST
    return roles


def scores(model: str, corpus: Corpus, domain: str = "d0", rows: slice | None = None):
    roles = last_is_test(corpus)
    cases = evaluation_cases(corpus, roles, domain, "test", None, own_domain_only=False)
    scorer = baselines.fit(model, corpus, roles, domain)
    return scorer(cases, rows or slice(0, len(cases.targets)))


def test_popularity_counts_training_events_of_the_domain_alone():
    corpus = corpus_of(
        [[(0, 1), (1, 2), (1, 3), (4, 4)], [(1, 1), (5, 2), (2, 9)]],
        sizes=(5, 2),
    )
    # Items 4 and 2 are the test events; item 5 belongs to d1.
    expected = torch.tensor([[1.0, 3.0, 0.0, 0.0, 0.0]]).expand(2, -1)
    torch.testing.assert_close(scores("popularity", corpus), expected, rtol=0, atol=0)
    assert scores("popularity", corpus, rows=slice(1, 2)).shape == (1, 5)


def test_recent_popularity_counts_the_week_before_each_target():
    late, early = 20 * DAY, 3 * DAY
    corpus = corpus_of(
        [
            [(0, 0), (1, late - 1), (2, late)],  # item 1 within the last week of `late`
            [(3, late - WEEK), (3, late - WEEK - 1), (4, early)],  # one at its very start
            [(2, 1), (0, late), (1, 60 * DAY)],  # an event at the target's own second
        ]
    )
    got = scores("popularity_7d", corpus)
    expected = torch.tensor(
        [
            [0.0, 1.0, 0.0, 1.0, 0.0],  # target at `late`: item 1, and item 3 once
            [1.0, 0.0, 1.0, 0.0, 0.0],  # target at `early`: items 0 and 2
            [0.0, 0.0, 0.0, 0.0, 0.0],  # a quiet week
        ]
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        scores("popularity_7d", corpus, rows=slice(1, 3)), expected[1:], rtol=0, atol=0
    )


def test_recent_popularity_equals_counting_one_user_at_a_time():
    rng = np.random.default_rng(0)
    rows = [
        [(int(item), int(t)) for item, t in zip(rng.integers(0, 9, 8), sorted(times), strict=True)]
        for times in rng.integers(0, 30 * DAY, (40, 8))
    ]
    corpus = corpus_of(rows, sizes=(9,))
    got = scores("popularity_7d", corpus)
    for user, row in enumerate(rows):
        asked = row[-1][1]
        expected = np.zeros(9, np.float32)
        for other in rows:
            for item, time in other[:-1]:
                expected[item] += asked - WEEK <= time < asked
        np.testing.assert_array_equal(got[user].numpy(), expected)


def test_recent_popularity_needs_times():
    corpus = corpus_of([[(0, 0), (1, 1)]], order="sequence")
    with pytest.raises(ValueError, match="popularity_7d on d0: the domain has `order: sequence`"):
        baselines.fit("popularity_7d", corpus, last_is_test(corpus), "d0")


def knn_by_definition(rows: list[list[int]], n_items: int) -> np.ndarray:
    """One user at a time, one pair at a time: the specification of the sparse products."""
    train = [row[:-1] for row in rows]
    near = np.zeros((n_items, n_items))
    for row in train:
        for a, i in enumerate(row):
            for b, j in enumerate(row):
                if i != j and 1 <= abs(a - b) <= ItemKNNScorer.reach:
                    near[i, j] += 1 / abs(a - b)
    count = np.array([sum(row.count(i) for row in train) for i in range(n_items)])
    similar = near / np.sqrt(np.maximum(1, np.outer(count, count)))
    return np.stack(
        [
            sum(ItemKNNScorer.decay**age * similar[i] for age, i in enumerate(reversed(row)))
            for row in train
        ]
    )


def test_item_knn_equals_the_definition():
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 12, rng.integers(3, 15)).tolist() for _ in range(30)]
    corpus = corpus_of([[(i, t) for t, i in enumerate(row)] for row in rows], sizes=(12,))
    got = scores("item_knn", corpus)
    np.testing.assert_allclose(got.numpy(), knn_by_definition(rows, 12), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores("item_knn", corpus, rows=slice(7, 9)), got[7:9])


def test_item_knn_never_looks_at_other_domains():
    rows = [[(0, 1), (5, 2), (1, 3), (2, 4)], [(0, 1), (1, 2), (6, 3), (3, 4)]]
    both = corpus_of(rows, sizes=(5, 2))
    alone = corpus_of([[e for e in row if e[0] < 5] for row in rows], sizes=(5,))
    torch.testing.assert_close(scores("item_knn", both), scores("item_knn", alone))


def test_an_unknown_baseline_names_the_known_ones():
    corpus = corpus_of([[(0, 0), (1, 1)]])
    with pytest.raises(ValueError, match="no baseline 'svd': there are popularity, popularity_7d"):
        baselines.fit("svd", corpus, last_is_test(corpus), "d0")
