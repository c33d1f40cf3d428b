import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from item_llm.batching import TokenBatch, by_parts, by_token_budget


def test_collate_pads_on_the_right():
    batch = TokenBatch.collate([[5, 6], [], [7]], 9, torch.device("cpu"))
    assert batch.ids.tolist() == [[5, 6], [9, 9], [7, 9]]
    assert batch.lengths.tolist() == [2, 0, 1]


def test_budget_groups_like_lengths_longest_first():
    groups = by_token_budget([1, 9, 2, 3, 8], budget=20, overhead=1)
    assert [g.tolist() for g in groups] == [[1, 4], [3, 2, 0]]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 100), st.integers(0, 9)
)
def test_budget_keeps_every_text_once_within_the_budget(lengths, budget, overhead):
    groups = by_token_budget(lengths, budget, overhead)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * (max(lengths[i] for i in group) + overhead)
        assert padded <= budget or len(group) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_parts_are_as_many_as_asked_and_none_is_empty(count):
    groups = by_parts(list(range(count, 0, -1)), 3)
    assert len(groups) == 3
    assert all(len(g) for g in groups)
    assert set(np.concatenate(groups).tolist()) == set(range(count))


def test_parts_put_like_lengths_together():
    assert [g.tolist() for g in by_parts([5, 1, 4, 2], 2)] == [[1, 3], [2, 0]]
