import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import evaluation, metrics
from pipeline.metrics import Ranks


def ranks_of(*pairs: tuple[int, int]) -> Ranks:
    best, ties = zip(*pairs, strict=True)
    return Ranks(best=np.array(best, np.int64), ties=np.array(ties, np.int64))


@pytest.mark.parametrize("module", [metrics, evaluation])
def test_worked_examples_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def gain(metric: str, rank: int, k: int) -> float:
    """The textbook formula, one rank at a time: the specification of the vectorised code."""
    inside = rank <= k
    return {"hr": 1.0, "ndcg": 1 / math.log2(1 + rank), "mrr": 1 / rank}[metric] * inside


@given(
    groups=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=20),
    k=st.integers(1, 250),
)
def test_every_metric_is_the_mean_over_the_tie_group(groups, k):
    got = metrics.per_user(ranks_of(*groups), ks=[k])
    for name in ("hr", "ndcg", "mrr"):
        expected = [
            sum(gain(name, rank, k) for rank in range(best, best + ties)) / ties
            for best, ties in groups
        ]
        np.testing.assert_allclose(got[f"{name}@{k}"], expected, rtol=0, atol=1e-12)
    full = [sum(1 / r for r in range(best, best + ties)) / ties for best, ties in groups]
    np.testing.assert_allclose(got["mrr"], full, rtol=0, atol=1e-12)


def test_the_expectation_is_what_random_tie_breaking_gives_on_average():
    rng = np.random.default_rng(0)
    drawn = rng.integers(7, 7 + 9, size=200_000)
    simulated = metrics.from_ranks(Ranks(best=drawn, ties=np.ones_like(drawn)), ks=[10])
    exact = metrics.from_ranks(ranks_of((7, 9)), ks=[10])
    for name, value in exact.items():
        assert simulated[name] == pytest.approx(value, rel=0.02)


def test_a_constant_model_is_chance_at_every_cut_off():
    constant = metrics.from_ranks(ranks_of(*[(1, 400)] * 3), ks=[10, 50, 200])
    assert constant["hr@10"] == pytest.approx(10 / 400, abs=1e-15)
    assert constant["hr@50"] == pytest.approx(50 / 400, abs=1e-15)
    assert constant["hr@200"] == pytest.approx(200 / 400, abs=1e-15)
    assert constant["mrr"] == pytest.approx(sum(1 / r for r in range(1, 401)) / 400, abs=1e-15)


def test_a_cut_off_beyond_the_catalogue_counts_every_rank():
    assert metrics.from_ranks(ranks_of((1, 5)), ks=[10])["hr@10"] == 1.0


def test_without_ties_gains_are_exact():
    values = metrics.per_user(ranks_of((3, 1), (11, 1)), ks=[10])
    assert values["ndcg@10"].tolist() == [0.5, 0.0]
    assert values["mrr"].tolist() == [1 / 3, 1 / 11]


@given(
    groups=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=20),
    ks=st.sets(st.integers(1, 400), min_size=2, max_size=6).map(sorted),
)
def test_metrics_lie_in_0_to_1_and_never_fall_as_the_cut_off_grows(groups, ks):
    values = metrics.per_user(ranks_of(*groups), ks=ks)
    for name in ("hr", "ndcg", "mrr"):
        curve = np.stack([values[f"{name}@{k}"] for k in ks])
        assert (curve >= 0).all()
        assert (curve <= 1).all()
        assert (np.diff(curve, axis=0) >= -1e-12).all()
    assert (values["mrr"] >= values[f"mrr@{ks[-1]}"] - 1e-12).all()


def test_no_users_and_bad_values_are_refused():
    empty = Ranks(best=np.empty(0, np.int64), ties=np.empty(0, np.int64))
    assert metrics.per_user(empty, ks=[10])["mrr"].shape == (0,)
    with pytest.raises(ValueError, match="no users"):
        metrics.from_ranks(empty)
    with pytest.raises(ValueError, match="cut-off k is 0"):
        metrics.from_ranks(ranks_of((1, 1)), ks=[0])
    with pytest.raises(ValueError, match="ties holds 0"):
        ranks_of((1, 0))
    with pytest.raises(ValueError, match="best is float64"):
        Ranks(best=np.ones(2), ties=np.ones(2, np.int64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"both must be \[n\]"):
        Ranks(best=np.ones(2, np.int64), ties=np.ones(3, np.int64))


def test_concatenation_keeps_the_order_and_takes_nothing():
    joined = Ranks.concatenate([ranks_of((1, 2)), ranks_of((5, 1), (3, 3))])
    assert joined.best.tolist() == [1, 5, 3]
    assert joined.ties.tolist() == [2, 1, 3]
    assert len(Ranks.concatenate([])) == 0
