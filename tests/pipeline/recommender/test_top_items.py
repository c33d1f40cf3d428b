"""The exact top k against a full sort, whatever the blocks, ties and seen items."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recommender import top_items as module
from pipeline.recommender.top_items import top_items


def by_a_full_sort(users, items, k, seen):
    scores = users.numpy() @ items.T
    for user, rows in enumerate(seen):
        scores[user, rows] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@given(data=st.data())
def test_it_is_a_full_sort(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_users, n_items = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 400))
    k, parts = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 3))
    # Whole numbers: many scores are equal, and sums are exact.
    users = torch.from_numpy(rng.integers(-2, 3, (n_users, 3)).astype(np.float32))
    items = rng.integers(-2, 3, (n_items, 3)).astype(np.float32)
    seen = [rng.choice(n_items, rng.integers(0, n_items + 1)) for _ in range(n_users)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEWEST_COLUMNS", data.draw(st.sampled_from([1, 7, 64, 1000])))
        patch.setattr(module, "_BLOCK_SCORES", 1)
        patch.setattr(module, "_MOST_USERS", data.draw(st.sampled_from([2, 1000])))
        found = top_items(users, np.array_split(items, parts), min(k, n_items), seen)
    rows, scores = by_a_full_sort(users, items, min(k, n_items), seen)
    for user in range(n_users):
        count = found.counts[user]
        assert count == min(k, n_items - len(set(seen[user].tolist())))
        assert np.array_equal(found.rows[user, :count], rows[user, :count])
        assert np.array_equal(found.scores[user, :count], scores[user, :count])


def test_rising_scores_are_all_taken():
    users, items = torch.ones(2, 1), np.arange(5000, dtype=np.float32)[:, None]
    found = top_items(users, [items], 3)
    assert found.rows.tolist() == [[4999, 4998, 4997]] * 2


def test_vectors_that_are_not_finite_are_told():
    with pytest.raises(ValueError, match="not finite"):
        top_items(torch.full((1, 2), torch.nan), [np.ones((3, 2), dtype=np.float32)], 1)
