import doctest

import numpy as np
import pytest
from scipy import stats

from pipeline import statistics
from pipeline.statistics import (
    Interval,
    estimate_means,
    macro_average,
    named_seed,
    paired_difference,
    resampled_means,
)


def test_worked_examples_hold():
    result = doctest.testmod(statistics)
    assert result.attempted > 0
    assert result.failed == 0


def mean_interval(values, resamples=1000, seed=(0,)) -> Interval:
    return estimate_means(values[:, None], resamples, seed)[0].interval


def by_definition(values, resamples, seed):
    """Draw, pick, average: the specification of the matrix product."""
    draws = np.random.default_rng(list(seed))
    picks = draws.integers(0, len(values), size=(resamples, len(values)))
    return values[picks].mean(axis=1)


def test_resampled_means_equal_the_definition():
    values = np.random.default_rng(1).random((37, 3))
    got = resampled_means(values, 50, [7])
    np.testing.assert_allclose(got, by_definition(values, 50, [7]), rtol=0, atol=1e-12)


def test_blocks_draw_the_same_users_as_one_piece(monkeypatch):
    values = np.random.default_rng(1).random((40, 2))
    whole = resampled_means(values, 30, [3])
    monkeypatch.setattr(statistics, "_BLOCK_ENTRIES", 40 * 7)
    np.testing.assert_allclose(resampled_means(values, 30, [3]), whole, rtol=0, atol=1e-15)


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(2).exponential(size=500)
    ours = mean_interval(values, resamples=20_000, seed=[0])
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.03 * width
    assert abs(ours.high - theirs.high) < 0.03 * width


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(400):
        interval = mean_interval(rng.normal(1.0, 1.0, size=100), resamples=400, seed=[trial])
        covered += interval.low <= 1.0 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_equal_inputs_give_equal_numbers_and_other_seeds_do_not():
    values = np.random.default_rng(4).random(80)
    assert mean_interval(values, seed=[1]) == mean_interval(values, seed=[1])
    assert mean_interval(values, seed=[1]) != mean_interval(values, seed=[2])
    assert named_seed(0, "a") != named_seed(1, "a")


def test_pairing_sees_a_small_difference_that_separate_intervals_hide():
    rng = np.random.default_rng(5)
    b = rng.random(300)
    a = b - 0.01 + rng.normal(0, 0.02, size=300)
    difference = paired_difference(a, b)
    assert difference.is_below_zero
    assert not difference.is_above_zero
    assert difference.mean == pytest.approx(-0.01, abs=0.005)
    apart_a, apart_b = mean_interval(a), mean_interval(b)
    assert apart_a.high > apart_b.low


def test_a_difference_within_noise_is_neither_gain_nor_loss():
    rng = np.random.default_rng(6)
    difference = paired_difference(rng.random(200), rng.random(200))
    assert not difference.is_below_zero
    assert not difference.is_above_zero


def test_a_gain_is_a_loss_seen_from_the_other_side():
    b = np.random.default_rng(7).random(50)
    assert paired_difference(b + 0.1, b).is_above_zero
    assert paired_difference(b, b + 0.1).is_below_zero


def test_macro_average_weighs_domains_equally():
    large = estimate_means(np.full((100, 1), 0.2), 50, [0])[0]
    small = estimate_means(np.array([[0.5], [0.7]]), 50, [1])[0]
    macro = macro_average([large, small])
    assert macro.mean == pytest.approx(0.4, abs=1e-15)
    assert macro.interval.low == pytest.approx(0.35, abs=1e-12)
    assert macro.interval.high == pytest.approx(0.45, abs=1e-12)


def test_impossible_inputs_are_refused():
    with pytest.raises(ValueError, match="no users"):
        resampled_means(np.empty((0, 1)), 10, [0])
    with pytest.raises(ValueError, match="same users"):
        paired_difference(np.zeros(3), np.zeros(4))
