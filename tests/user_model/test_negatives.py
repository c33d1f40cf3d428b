import numpy as np
import pytest

from user_model.batching import Batches
from user_model.negatives import NegativeSampler


@pytest.fixture
def batch(circles, domain_starts):
    return Batches(circles, domain_starts, batch_tokens=200, max_history=None, seed=0).epoch(0)[0]


def sampler(items, domain_starts, **kwargs):
    settings = {"count": 8, "tile": 16, "popularity_share": 0.0, "seed": 0} | kwargs
    return NegativeSampler.build(items, domain_starts, **settings)


@pytest.mark.parametrize("popularity_share", [0.0, 0.7])
def test_negatives_are_of_the_domain_of_the_target(batch, circles, domain_starts, popularity_share):
    draws = sampler(circles.items, domain_starts, popularity_share=popularity_share)
    tiles = draws.tiles(batch, batch, 0, 0)
    negatives = tiles.items[tiles.slots // 16]
    found = np.searchsorted(domain_starts, negatives, side="right") - 1
    assert np.array_equal(found, np.repeat(batch.domains[:, None], 8, axis=1))


def test_slots_and_tokens_are_each_others_inverse(batch, circles, domain_starts):
    tiles = sampler(circles.items, domain_starts).tiles(batch, batch, 0, 0)
    assert np.array_equal(tiles.tokens[tiles.slots], np.arange(batch.n_tokens))
    assert len(np.unique(tiles.slots)) == batch.n_tokens
    assert len(tiles.tokens) == len(tiles.items) * 16
    assert len(tiles.tokens) - batch.n_tokens < 2 * 16


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_token_has_the_same_negatives_on_any_worker(batch, circles, domain_starts, size):
    draws = sampler(circles.items, domain_starts)
    alone = draws.tiles(batch, batch, 3, 4)
    expected = alone.items[alone.slots // 16]
    parts = [batch.part(rank, size) for rank in range(size)]
    tiles = [draws.tiles(batch, part, 3, 4) for part in parts]
    got = np.concatenate([t.items[t.slots // 16] for t in tiles])
    assert np.array_equal(got, expected)


def test_negatives_may_be_items_with_training_events_alone():
    starts = np.array([0, 6, 10])
    items = np.array([1, 4, 1, 4, 4, 7, 9, 7])
    rows = _Rows(np.array([0, 5, 8]), items)
    batch = Batches(rows, starts, batch_tokens=9, max_history=None, seed=0).epoch(0)[0]
    draws = sampler(items, starts, count=400, unseen=False)
    tiles = draws.tiles(batch, batch, 0, 0)
    for tile, domain in zip(tiles.items[tiles.slots // 16], batch.domains, strict=True):
        assert set(tile.tolist()) == ({1, 4}, {7, 9})[domain]
    assert draws.probabilities[[1, 4, 7, 9]].tolist() == [0.5] * 4
    assert draws.probabilities.sum() == 2.0
    everything = sampler(items, starts, count=400).tiles(batch, batch, 0, 0)
    assert {0, 2, 3, 5} < set(everything.items.ravel().tolist())


def test_a_share_of_the_negatives_comes_from_all_domains():
    starts = np.array([0, 10, 40])
    items = np.array([1, 4, 1, 4, 4, 17, 19, 17])
    rows = _Rows(np.array([0, 5, 8]), items)
    batch = Batches(rows, starts, batch_tokens=9, max_history=None, seed=0).epoch(0)[0]
    draws = sampler(items, starts, count=4000, other_domains_share=0.4, popularity_share=0.2)
    tiles = draws.tiles(batch, batch, 0, 0)
    for tile, domain in zip(tiles.items[tiles.slots // 16], batch.domains, strict=True):
        # Of a draw from everywhere, a quarter are of the small domain and the rest of the large.
        outside = ((tile < 10) != (domain == 0)).mean()
        assert outside == pytest.approx(0.4 * (0.75, 0.25)[domain], abs=0.03)
    learned = sampler(items, starts, count=400, other_domains_share=0.5, unseen=False)
    assert set(learned.tiles(batch, batch, 0, 0).items.ravel().tolist()) == {1, 4, 17, 19}


def test_draws_differ_between_steps_epochs_and_seeds(batch, circles, domain_starts):
    draws = sampler(circles.items, domain_starts)
    other = sampler(circles.items, domain_starts, seed=1)
    first = draws.draw(batch, 0, 0)
    assert np.array_equal(first, draws.draw(batch, 0, 0))
    for different in (draws.draw(batch, 0, 1), draws.draw(batch, 1, 0), other.draw(batch, 0, 0)):
        assert not np.array_equal(first, different)


@pytest.mark.parametrize("popularity_share", [0.0, 0.5, 1.0])
def test_items_are_drawn_as_often_as_their_probability_says(popularity_share):
    starts = np.array([0, 4, 6])
    items = np.array([0, 0, 0, 1, 4, 4, 5])
    batch = Batches(
        _Rows(np.array([0, 4, 7]), items), starts, batch_tokens=9, max_history=None, seed=0
    ).epoch(0)[0]
    draws = sampler(items, starts, count=20000, tile=4, popularity_share=popularity_share)
    drawn = np.bincount(draws.draw(batch, 0, 0).ravel(), minlength=6) / 20000
    popularity = np.array([0.75, 0.25, 0, 0, 2 / 3, 1 / 3])
    uniform = np.array([0.25] * 4 + [0.5] * 2)
    expected = popularity_share * popularity + (1 - popularity_share) * uniform
    assert draws.probabilities == pytest.approx(expected, abs=1e-12)
    assert drawn == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(("popularity_share", "in_batch_share"), [(0.0, 1.0), (0.3, 0.5)])
def test_in_batch_draws_are_the_batchs_targets(popularity_share, in_batch_share):
    starts, items = np.array([0, 4, 6]), np.array([0, 1, 1, 2, 4, 4, 5])
    packer = Batches(
        _Rows(np.array([0, 4, 7]), items), starts, batch_tokens=9, max_history=None, seed=0
    )
    batch, targets = packer.epoch(0)[0], packer.learned_targets()
    assert sorted(targets) == [1, 1, 2, 4, 5]
    draws = sampler(
        items, starts, count=20000, tile=4, popularity_share=popularity_share,
        in_batch_share=in_batch_share, targets=targets,
    )  # fmt: skip
    drawn = np.bincount(draws.draw(batch, 0, 0).ravel(), minlength=6) / 20000
    mates = np.array([0, 2 / 3, 1 / 3, 0, 1 / 2, 1 / 2])
    popularity = np.array([1 / 4, 1 / 2, 1 / 4, 0, 2 / 3, 1 / 3])
    uniform = np.array([0.25] * 4 + [0.5] * 2)
    rest = 1 - in_batch_share - popularity_share
    expected = in_batch_share * mates + popularity_share * popularity + rest * uniform
    assert draws.probabilities == pytest.approx(expected, abs=1e-12)
    assert drawn == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("in_batch_share", [0.0, 0.6])
@pytest.mark.parametrize("last_only", [False, True])
def test_parts_share_the_whole_batchs_draws(circles, domain_starts, in_batch_share, last_only):
    packer = Batches(
        circles, domain_starts, batch_tokens=200, max_history=None, seed=0, last_only=last_only
    )
    batch = packer.epoch(0)[0]
    draws = sampler(
        circles.items, domain_starts, tile=4, in_batch_share=in_batch_share,
        targets=packer.learned_targets(),
    )  # fmt: skip
    whole = draws.tiles(batch, batch, 3, 4)
    assert np.array_equal(whole.tokens[whole.slots], batch.learned)
    assert len(whole.slots) == batch.n_targets
    parts = [batch.part(rank, 3) for rank in range(3)]
    tiles = [draws.tiles(batch, part, 3, 4) for part in parts]
    for part, own in zip(parts, tiles, strict=True):
        assert np.array_equal(own.tokens[own.slots], part.learned)
    got = np.concatenate([t.items[t.slots // 4] for t in tiles])
    assert np.array_equal(got, whole.items[whole.slots // 4])


class _Rows:
    def __init__(self, offsets, items):
        self.offsets, self.items = offsets, items
