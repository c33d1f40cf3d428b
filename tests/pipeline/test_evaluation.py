import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import (
    EmbeddingScorer,
    EvaluationConfig,
    NonFiniteScoresError,
    rank_targets,
    shard,
)
from pipeline.histories import EvaluationCases
from pipeline.metrics import Ranks, from_ranks


def cases_of(targets: list[int], seen: list[list[int]], first_item: int = 0) -> EvaluationCases:
    n = len(targets)
    return EvaluationCases(
        domain="books",
        users=np.arange(n),
        offsets=np.zeros(n + 1, np.int64),
        history=np.empty(0, np.int64),
        seen_offsets=np.cumsum([0, *map(len, seen)]).astype(np.int64),
        seen=np.array([item for row in seen for item in row], np.int64) + first_item,
        targets=np.array(targets, np.int64) + first_item,
    )


class TableScorer:
    def __init__(self, scores_nV: torch.Tensor):
        self.scores_nV = scores_nV

    def __call__(self, cases, rows):
        return self.scores_nV[rows]


def rank(cases, scores_nV, *, first_item=0, **kwargs) -> Ranks:
    table = torch.as_tensor(scores_nV, dtype=torch.float32)
    n_items = table.shape[1]
    return rank_targets(cases, first_item, n_items, TableScorer(table), model="m", **kwargs)


def by_definition(cases, scores_nV, first_item, mask_seen) -> list[tuple[int, int]]:
    """One user, one item at a time: the specification of the blockwise code."""
    expected = []
    for row, scores in enumerate(scores_nV):
        target = cases.targets[row] - first_item
        seen = cases.seen[cases.seen_offsets[row] : cases.seen_offsets[row + 1]] - first_item
        masked = set(seen.tolist()) - {int(target)} if mask_seen else set()
        kept = [float(s) for item, s in enumerate(scores) if item not in masked]
        own = float(scores[target])
        expected.append((1 + sum(s > own for s in kept), sum(s == own for s in kept)))
    return expected


@st.composite
def catalogues(draw):
    n, n_items = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    item = st.integers(0, n_items - 1)
    targets = draw(st.lists(item, min_size=n, max_size=n))
    seen = draw(st.lists(st.lists(item, max_size=6), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(-2, 2), min_size=n * n_items, max_size=n * n_items))
    return targets, seen, np.array(scores, np.float32).reshape(n, n_items)


@settings(max_examples=200, deadline=None)
@given(catalogues(), st.integers(1, 4), st.booleans(), st.sampled_from([0, 7]))
def test_ranks_equal_the_definition(catalogue, block, mask_seen, first_item):
    targets, seen, scores_nV = catalogue
    cases = cases_of(targets, seen, first_item)
    got = rank(cases, scores_nV, first_item=first_item, block=block, mask_seen=mask_seen)
    expected = by_definition(cases, scores_nV, first_item, mask_seen)
    assert list(zip(got.best.tolist(), got.ties.tolist(), strict=True)) == expected


def test_an_example_by_hand():
    # Items 0..4 score 5 4 3 3 1; the target is item 3, items 0 and 2 are seen.
    scores = [[5.0, 4.0, 3.0, 3.0, 1.0]]
    cases = cases_of([3], [[0, 2]])
    masked = rank(cases, scores)
    assert (masked.best.tolist(), masked.ties.tolist()) == ([2], [1])
    unmasked = rank(cases, scores, mask_seen=False)
    assert (unmasked.best.tolist(), unmasked.ties.tolist()) == ([3], [2])
    assert unmasked.mean.tolist() == [3.5]


def test_a_target_that_was_seen_before_stays_a_candidate():
    got = rank(cases_of([1], [[1, 0, 0]]), [[9.0, 5.0, 7.0]])
    assert (got.best.tolist(), got.ties.tolist()) == ([2], [1])


@pytest.mark.faults
def test_a_constant_model_is_chance():
    got = rank(cases_of([0, 3, 9], [[], [], []]), torch.zeros(3, 40))
    assert from_ranks(got, ks=[10])["hr@10"] == pytest.approx(10 / 40, abs=1e-15)


def test_shards_and_block_sizes_change_nothing():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 30, (23, 50), generator=generator).float()
    rng = np.random.default_rng(0)
    cases = cases_of(rng.integers(0, 50, 23).tolist(), rng.integers(0, 50, (23, 4)).tolist())
    whole = rank(cases, scores)
    parts = [rank(cases, scores, rows=shard(23, worker, 3), block=5) for worker in range(3)]
    joined = Ranks.concatenate(parts)
    np.testing.assert_array_equal(joined.best, whole.best)
    np.testing.assert_array_equal(joined.ties, whole.ties)


@given(st.integers(0, 50), st.integers(1, 8))
def test_shards_cover_every_row_once(n, size):
    rows = [row for worker in range(size) for row in range(n)[shard(n, worker, size)]]
    assert rows == list(range(n))


def test_blocks_stay_within_the_budget():
    shapes = []

    class Recorder(TableScorer):
        def __call__(self, cases, rows):
            shapes.append((rows.stop - rows.start, 1000))
            return super().__call__(cases, rows)

    cases = cases_of([0] * 10, [[]] * 10)
    scorer = Recorder(torch.randn(10, 1000))
    rank_targets(cases, 0, 1000, scorer, model="m", block_mb=0.012)
    assert shapes == [(3, 1000)] * 3 + [(1, 1000)]
    with pytest.raises(ValueError, match=r"set it to 0\.004 or more"):
        rank_targets(cases, 0, 1000, scorer, model="m", block_mb=0.001)


@pytest.mark.faults
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_scores_name_the_model_and_the_domain(bad):
    scores = torch.zeros(2, 5)
    scores[1, 4] = bad
    with pytest.raises(NonFiniteScoresError, match=r"m on books: 1 of 10 scores"):
        rank(cases_of([0, 1], [[], []]), scores)


def test_large_finite_scores_pass_though_their_sum_overflows():
    scores = torch.full((1, 4), 3e38)
    scores[0, 2] = 1.0
    assert rank(cases_of([2], [[]]), scores).best.tolist() == [4]


def test_scores_are_only_read():
    scores = torch.arange(6.0).view(2, 3)
    before = scores.clone()
    rank(cases_of([0, 1], [[2], [0]]), scores)
    torch.testing.assert_close(scores, before, rtol=0, atol=0)


def test_embeddings_score_by_inner_product():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    users = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    cases = cases_of([2, 2], [[], [1]])
    got = rank_targets(cases, 0, 3, EmbeddingScorer(items, users), model="m")
    assert got.best.tolist() == [2, 1]
    with pytest.raises(ValueError, match="same d"):
        EmbeddingScorer(items, users[:, :1])
    with pytest.raises(ValueError, match="1 user vectors for 2 cases of books"):
        rank_targets(cases, 0, 3, EmbeddingScorer(items, users[:1]), model="m")


def test_wrong_inputs_say_what_is_wrong():
    cases = cases_of([0, 5], [[], []])
    with pytest.raises(ValueError, match=r"targets hold global item positions 0 \.\. 5"):
        rank(cases, torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"expected floating \[2, 6\]"):
        rank_targets(cases, 0, 6, TableScorer(torch.zeros(2, 7)), model="m")
    with pytest.raises(ValueError, match="contiguous"):
        rank(cases, torch.zeros(2, 6), rows=slice(0, 2, 2))


def test_no_users_give_no_ranks():
    assert len(rank(cases_of([], []), torch.zeros(0, 5))) == 0


@pytest.mark.parametrize("ks", [(0, 10), (10, 10), (5, 50), ()])
def test_the_config_refuses_bad_cut_offs(ks):
    with pytest.raises(ValueError, match="ks"):
        EvaluationConfig(ks=ks)


def test_the_config_sorts_cut_offs():
    assert EvaluationConfig(ks=(50, 10)).ks == (10, 50)
